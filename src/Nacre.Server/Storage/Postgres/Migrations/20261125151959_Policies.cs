using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace Nacre.Server.Storage.Postgres.Migrations
{
    /// <inheritdoc />
    public partial class Policies : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropColumn(
                name: "Policy",
                table: "LivePcs");

            migrationBuilder.CreateTable(
                name: "Groups",
                columns: table => new
                {
                    Name = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Position = table.Column<int>(type: "integer", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Groups", x => x.Name);
                });

            migrationBuilder.CreateTable(
                name: "Policies",
                columns: table => new
                {
                    Level = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Document = table.Column<string>(type: "text", nullable: false, collation: "C")
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Policies", x => x.Level);
                });

            migrationBuilder.CreateTable(
                name: "PolicyAcknowledgements",
                columns: table => new
                {
                    DeviceId = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    LivePc = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Version = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    At = table.Column<long>(type: "bigint", nullable: false),
                    FromNextStart = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Unenforceable = table.Column<string>(type: "text", nullable: false, collation: "C")
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_PolicyAcknowledgements", x => new { x.DeviceId, x.LivePc });
                    table.ForeignKey(
                        name: "FK_PolicyAcknowledgements_Devices_DeviceId",
                        column: x => x.DeviceId,
                        principalTable: "Devices",
                        principalColumn: "Id",
                        onDelete: ReferentialAction.Restrict);
                    table.ForeignKey(
                        name: "FK_PolicyAcknowledgements_LivePcs_LivePc",
                        column: x => x.LivePc,
                        principalTable: "LivePcs",
                        principalColumn: "Name",
                        onDelete: ReferentialAction.Restrict);
                });

            migrationBuilder.CreateTable(
                name: "GroupMembers",
                columns: table => new
                {
                    Group = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    User = table.Column<string>(type: "text", nullable: false, collation: "C")
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_GroupMembers", x => new { x.Group, x.User });
                    table.ForeignKey(
                        name: "FK_GroupMembers_Groups_Group",
                        column: x => x.Group,
                        principalTable: "Groups",
                        principalColumn: "Name",
                        onDelete: ReferentialAction.Cascade);
                    table.ForeignKey(
                        name: "FK_GroupMembers_Users_User",
                        column: x => x.User,
                        principalTable: "Users",
                        principalColumn: "Name",
                        onDelete: ReferentialAction.Restrict);
                });

            migrationBuilder.CreateIndex(
                name: "IX_GroupMembers_User",
                table: "GroupMembers",
                column: "User");

            migrationBuilder.CreateIndex(
                name: "IX_PolicyAcknowledgements_LivePc",
                table: "PolicyAcknowledgements",
                column: "LivePc");
        }

        /// <inheritdoc />
        protected override void Down(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropTable(
                name: "GroupMembers");

            migrationBuilder.DropTable(
                name: "Policies");

            migrationBuilder.DropTable(
                name: "PolicyAcknowledgements");

            migrationBuilder.DropTable(
                name: "Groups");

            migrationBuilder.AddColumn<string>(
                name: "Policy",
                table: "LivePcs",
                type: "text",
                nullable: true,
                collation: "C");
        }
    }
}
