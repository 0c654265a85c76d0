using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace Nacre.Server.Storage.Migrations
{
    /// <inheritdoc />
    public partial class Rollouts : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.CreateTable(
                name: "Rollouts",
                columns: table => new
                {
                    Image = table.Column<string>(type: "TEXT", nullable: false),
                    Channel = table.Column<string>(type: "TEXT", nullable: false),
                    Version = table.Column<int>(type: "INTEGER", nullable: false),
                    State = table.Column<string>(type: "TEXT", nullable: false),
                    Steps = table.Column<string>(type: "TEXT", nullable: false),
                    Step = table.Column<int>(type: "INTEGER", nullable: false),
                    StepSince = table.Column<long>(type: "INTEGER", nullable: false),
                    StepHours = table.Column<int>(type: "INTEGER", nullable: false),
                    StopAtPercent = table.Column<int>(type: "INTEGER", nullable: false),
                    StopAfter = table.Column<int>(type: "INTEGER", nullable: false),
                    CountedFrom = table.Column<long>(type: "INTEGER", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Rollouts", x => new { x.Image, x.Channel });
                    table.ForeignKey(
                        name: "FK_Rollouts_Channels_Image_Channel",
                        columns: x => new { x.Image, x.Channel },
                        principalTable: "Channels",
                        principalColumns: new[] { "Image", "Name" },
                        onDelete: ReferentialAction.Restrict);
                    table.ForeignKey(
                        name: "FK_Rollouts_Releases_Image_Version",
                        columns: x => new { x.Image, x.Version },
                        principalTable: "Releases",
                        principalColumns: new[] { "Image", "Version" },
                        onDelete: ReferentialAction.Restrict);
                });

            migrationBuilder.CreateTable(
                name: "Starts",
                columns: table => new
                {
                    DeviceId = table.Column<string>(type: "TEXT", nullable: false),
                    LivePc = table.Column<string>(type: "TEXT", nullable: false),
                    Image = table.Column<string>(type: "TEXT", nullable: false),
                    Version = table.Column<int>(type: "INTEGER", nullable: false),
                    HealthyAt = table.Column<long>(type: "INTEGER", nullable: true),
                    FailedAt = table.Column<long>(type: "INTEGER", nullable: true)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Starts", x => new { x.DeviceId, x.LivePc, x.Image, x.Version });
                    table.ForeignKey(
                        name: "FK_Starts_Devices_DeviceId",
                        column: x => x.DeviceId,
                        principalTable: "Devices",
                        principalColumn: "Id",
                        onDelete: ReferentialAction.Restrict);
                    table.ForeignKey(
                        name: "FK_Starts_LivePcs_LivePc",
                        column: x => x.LivePc,
                        principalTable: "LivePcs",
                        principalColumn: "Name",
                        onDelete: ReferentialAction.Restrict);
                    table.ForeignKey(
                        name: "FK_Starts_Releases_Image_Version",
                        columns: x => new { x.Image, x.Version },
                        principalTable: "Releases",
                        principalColumns: new[] { "Image", "Version" },
                        onDelete: ReferentialAction.Cascade);
                });

            migrationBuilder.CreateIndex(
                name: "IX_Rollouts_Image_Version",
                table: "Rollouts",
                columns: new[] { "Image", "Version" });

            migrationBuilder.CreateIndex(
                name: "IX_Starts_Image_Version",
                table: "Starts",
                columns: new[] { "Image", "Version" });

            migrationBuilder.CreateIndex(
                name: "IX_Starts_LivePc",
                table: "Starts",
                column: "LivePc");
        }

        /// <inheritdoc />
        protected override void Down(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropTable(
                name: "Rollouts");

            migrationBuilder.DropTable(
                name: "Starts");
        }
    }
}
