using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace Nacre.Server.Storage.Migrations
{
    /// <inheritdoc />
    public partial class Logs : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.AddColumn<string>(
                name: "Reason",
                table: "DeviceOrders",
                type: "TEXT",
                nullable: true);

            migrationBuilder.CreateTable(
                name: "DeviceLogs",
                columns: table => new
                {
                    OrderId = table.Column<string>(type: "TEXT", nullable: false),
                    ReceivedAt = table.Column<long>(type: "INTEGER", nullable: false),
                    Lines = table.Column<string>(type: "TEXT", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_DeviceLogs", x => x.OrderId);
                    table.ForeignKey(
                        name: "FK_DeviceLogs_DeviceOrders_OrderId",
                        column: x => x.OrderId,
                        principalTable: "DeviceOrders",
                        principalColumn: "Id",
                        onDelete: ReferentialAction.Restrict);
                });

            // What a device told was one switch before.
            migrationBuilder.Sql(
                """
                UPDATE "Policies" SET "Document" = json_set(json_remove("Document", '$."telemetry.recordStarts"'), '$."telemetry.level"',
                    CASE json_extract("Document", '$."telemetry.recordStarts"') WHEN 0 THEN 'off' ELSE 'health' END)
                WHERE json_type("Document", '$."telemetry.recordStarts"') IS NOT NULL;
                """);
        }

        /// <inheritdoc />
        protected override void Down(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropTable(
                name: "DeviceLogs");

            migrationBuilder.DropColumn(
                name: "Reason",
                table: "DeviceOrders");
        }
    }
}
