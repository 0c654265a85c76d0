using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace Nacre.Server.Storage.Migrations
{
    /// <inheritdoc />
    public partial class Policies : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.CreateTable(
                name: "Groups",
                columns: table => new
                {
                    Name = table.Column<string>(type: "TEXT", nullable: false),
                    Position = table.Column<int>(type: "INTEGER", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Groups", x => x.Name);
                });

            migrationBuilder.CreateTable(
                name: "Policies",
                columns: table => new
                {
                    Level = table.Column<string>(type: "TEXT", nullable: false),
                    Document = table.Column<string>(type: "TEXT", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Policies", x => x.Level);
                });

            migrationBuilder.CreateTable(
                name: "PolicyAcknowledgements",
                columns: table => new
                {
                    DeviceId = table.Column<string>(type: "TEXT", nullable: false),
                    LivePc = table.Column<string>(type: "TEXT", nullable: false),
                    Version = table.Column<string>(type: "TEXT", nullable: false),
                    At = table.Column<long>(type: "INTEGER", nullable: false),
                    FromNextStart = table.Column<string>(type: "TEXT", nullable: false),
                    Unenforceable = table.Column<string>(type: "TEXT", nullable: false)
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
                    Group = table.Column<string>(type: "TEXT", nullable: false),
                    User = table.Column<string>(type: "TEXT", nullable: false)
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

            // What was decided by LivePC, in the names of before; what is the factory's value is left to it.
            migrationBuilder.Sql(
                """
                INSERT INTO "Policies" ("Level", "Document")
                SELECT 'livepc:' || "Name", json_patch('{}', json_object(
                    'policyRefreshInterval', MIN(NULLIF("Policy" ->> '$.updateEveryMinutes', 60), 1440),
                    'update.apply', NULLIF("Policy" ->> '$.updates', 'next-start'),
                    'update.deadlineDays', NULLIF("Policy" ->> '$.updateDeadlineDays', 7),
                    'update.postponeMax', NULLIF("Policy" ->> '$.updatePostponements', 3),
                    'update.window', json(NULLIF("Policy" -> '$.updateWindows', '[]')),
                    'update.bandwidthKbps', NULLIF("Policy" ->> '$.downloadBytesPerSecond', 0) / 125,
                    'update.healthUnits', json(NULLIF("Policy" -> '$.healthUnits', '[]')),
                    'update.healthMinutes', NULLIF("Policy" ->> '$.healthMinutes', 15),
                    'net.meteredBehaviour', CASE "Policy" ->> '$.updateOnMetered' WHEN 1 THEN 'go' END,
                    'prefetch.onBattery', CASE "Policy" ->> '$.updateOnBattery' WHEN 1 THEN json('true') END,
                    'layer.app', CASE "Policy" ->> '$.userApplications' WHEN 0 THEN json('false') END,
                    'layer.rules', json(NULLIF("Policy" -> '$.rules', '[]')),
                    'rejuvenate.userAllowed', NULLIF("Policy" ->> '$.userRejuvenation', 'full'),
                    'rejuvenate.undoDays', NULLIF("Policy" ->> '$.undoDays', 7),
                    'snapshot.everyHours', NULLIF("Policy" ->> '$.snapshotEveryHours', 4),
                    'snapshot.keep', NULLIF("Policy" ->> '$.keepSnapshots', 30),
                    'snapshot.keepDays', NULLIF("Policy" ->> '$.keepDays', 30),
                    'telemetry.recordStarts', CASE "Policy" ->> '$.recordStarts' WHEN 0 THEN json('false') END))
                FROM "LivePcs" WHERE "Policy" IS NOT NULL;
                """);
            migrationBuilder.DropColumn(
                name: "Policy",
                table: "LivePcs");
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
                type: "TEXT",
                nullable: true);
        }
    }
}
