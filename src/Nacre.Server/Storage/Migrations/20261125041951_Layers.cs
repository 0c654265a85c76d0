using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace Nacre.Server.Storage.Migrations
{
    /// <inheritdoc />
    public partial class Layers : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.AddColumn<string>(
                name: "BuiltOn",
                table: "Releases",
                type: "TEXT",
                nullable: true);

            migrationBuilder.AddColumn<string>(
                name: "Digest",
                table: "Releases",
                type: "TEXT",
                nullable: true);

            migrationBuilder.AddColumn<string>(
                name: "Policy",
                table: "LivePcs",
                type: "TEXT",
                nullable: true);

            migrationBuilder.AddColumn<int>(
                name: "Kind",
                table: "Images",
                type: "INTEGER",
                nullable: false,
                defaultValue: 0);

            migrationBuilder.CreateTable(
                name: "Contents",
                columns: table => new
                {
                    Image = table.Column<string>(type: "TEXT", nullable: false),
                    Version = table.Column<int>(type: "INTEGER", nullable: false),
                    Contents = table.Column<byte[]>(type: "BLOB", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Contents", x => new { x.Image, x.Version });
                    table.ForeignKey(
                        name: "FK_Contents_Releases_Image_Version",
                        columns: x => new { x.Image, x.Version },
                        principalTable: "Releases",
                        principalColumns: new[] { "Image", "Version" },
                        onDelete: ReferentialAction.Restrict);
                });

            migrationBuilder.CreateTable(
                name: "LivePcLayers",
                columns: table => new
                {
                    LivePc = table.Column<string>(type: "TEXT", nullable: false),
                    Position = table.Column<int>(type: "INTEGER", nullable: false),
                    Image = table.Column<string>(type: "TEXT", nullable: false),
                    Channel = table.Column<string>(type: "TEXT", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_LivePcLayers", x => new { x.LivePc, x.Position });
                    table.ForeignKey(
                        name: "FK_LivePcLayers_Images_Image",
                        column: x => x.Image,
                        principalTable: "Images",
                        principalColumn: "Name",
                        onDelete: ReferentialAction.Restrict);
                    table.ForeignKey(
                        name: "FK_LivePcLayers_LivePcs_LivePc",
                        column: x => x.LivePc,
                        principalTable: "LivePcs",
                        principalColumn: "Name",
                        onDelete: ReferentialAction.Restrict);
                });

            migrationBuilder.CreateTable(
                name: "Reports",
                columns: table => new
                {
                    DeviceId = table.Column<string>(type: "TEXT", nullable: false),
                    Id = table.Column<string>(type: "TEXT", nullable: false),
                    LivePc = table.Column<string>(type: "TEXT", nullable: false),
                    ReceivedAt = table.Column<long>(type: "INTEGER", nullable: false),
                    Report = table.Column<string>(type: "TEXT", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Reports", x => new { x.DeviceId, x.Id });
                    table.ForeignKey(
                        name: "FK_Reports_Devices_DeviceId",
                        column: x => x.DeviceId,
                        principalTable: "Devices",
                        principalColumn: "Id",
                        onDelete: ReferentialAction.Restrict);
                    table.ForeignKey(
                        name: "FK_Reports_LivePcs_LivePc",
                        column: x => x.LivePc,
                        principalTable: "LivePcs",
                        principalColumn: "Name",
                        onDelete: ReferentialAction.Restrict);
                });

            migrationBuilder.CreateIndex(
                name: "IX_LivePcLayers_Image",
                table: "LivePcLayers",
                column: "Image");

            migrationBuilder.CreateIndex(
                name: "IX_Reports_LivePc",
                table: "Reports",
                column: "LivePc");
        }

        /// <inheritdoc />
        protected override void Down(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropTable(
                name: "Contents");

            migrationBuilder.DropTable(
                name: "LivePcLayers");

            migrationBuilder.DropTable(
                name: "Reports");

            migrationBuilder.DropColumn(
                name: "BuiltOn",
                table: "Releases");

            migrationBuilder.DropColumn(
                name: "Digest",
                table: "Releases");

            migrationBuilder.DropColumn(
                name: "Policy",
                table: "LivePcs");

            migrationBuilder.DropColumn(
                name: "Kind",
                table: "Images");
        }
    }
}
