using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace Nacre.Server.Storage.Postgres.Migrations
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
                type: "text",
                nullable: true,
                collation: "C");

            migrationBuilder.CreateTable(
                name: "DeviceLogs",
                columns: table => new
                {
                    OrderId = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    ReceivedAt = table.Column<long>(type: "bigint", nullable: false),
                    Lines = table.Column<string>(type: "text", nullable: false, collation: "C")
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
                UPDATE "Policies" SET "Document" = (("Document"::jsonb - 'telemetry.recordStarts') || jsonb_build_object('telemetry.level',
                    CASE "Document"::jsonb ->> 'telemetry.recordStarts' WHEN 'false' THEN 'off' ELSE 'health' END))::text
                WHERE jsonb_exists("Document"::jsonb, 'telemetry.recordStarts');
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
