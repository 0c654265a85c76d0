using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace Nacre.Server.Storage.Migrations
{
    /// <inheritdoc />
    public partial class Store : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.AddColumn<long>(
                name: "NeededAt",
                table: "Segments",
                type: "INTEGER",
                nullable: false,
                defaultValue: 0L);

            migrationBuilder.AddColumn<int>(
                name: "Keep",
                table: "Images",
                type: "INTEGER",
                nullable: true);

            migrationBuilder.CreateTable(
                name: "LeasedReleases",
                columns: table => new
                {
                    LeaseId = table.Column<string>(type: "TEXT", nullable: false),
                    Image = table.Column<string>(type: "TEXT", nullable: false),
                    Version = table.Column<int>(type: "INTEGER", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_LeasedReleases", x => new { x.LeaseId, x.Image, x.Version });
                    table.ForeignKey(
                        name: "FK_LeasedReleases_Leases_LeaseId",
                        column: x => x.LeaseId,
                        principalTable: "Leases",
                        principalColumn: "Id",
                        onDelete: ReferentialAction.Cascade);
                });

            migrationBuilder.CreateTable(
                name: "SegmentUses",
                columns: table => new
                {
                    Image = table.Column<string>(type: "TEXT", nullable: false),
                    Version = table.Column<int>(type: "INTEGER", nullable: false),
                    Segment = table.Column<string>(type: "TEXT", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_SegmentUses", x => new { x.Image, x.Version, x.Segment });
                    table.ForeignKey(
                        name: "FK_SegmentUses_Releases_Image_Version",
                        columns: x => new { x.Image, x.Version },
                        principalTable: "Releases",
                        principalColumns: new[] { "Image", "Version" },
                        onDelete: ReferentialAction.Cascade);
                    table.ForeignKey(
                        name: "FK_SegmentUses_Segments_Segment",
                        column: x => x.Segment,
                        principalTable: "Segments",
                        principalColumn: "Name",
                        onDelete: ReferentialAction.Restrict);
                });

            migrationBuilder.CreateIndex(
                name: "IX_LeasedReleases_Image_Version",
                table: "LeasedReleases",
                columns: new[] { "Image", "Version" });

            migrationBuilder.CreateIndex(
                name: "IX_SegmentUses_Segment",
                table: "SegmentUses",
                column: "Segment");

            // What is there is needed now; which releases refer to it is noted at the next start. What leases of before cover is not known: rather too much than too little.
            migrationBuilder.Sql("UPDATE Segments SET NeededAt = CAST(strftime('%s', 'now') AS INTEGER) * 1000");
            migrationBuilder.Sql("INSERT OR IGNORE INTO LeasedReleases SELECT l.Id, p.Image, r.Version FROM Leases l JOIN LivePcs p ON p.Name = l.LivePc JOIN Releases r ON r.Image = p.Image");
            migrationBuilder.Sql("INSERT OR IGNORE INTO LeasedReleases SELECT l.Id, y.Image, r.Version FROM Leases l JOIN LivePcLayers y ON y.LivePc = l.LivePc JOIN Releases r ON r.Image = y.Image");
        }

        /// <inheritdoc />
        protected override void Down(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropTable(
                name: "LeasedReleases");

            migrationBuilder.DropTable(
                name: "SegmentUses");

            migrationBuilder.DropColumn(
                name: "NeededAt",
                table: "Segments");

            migrationBuilder.DropColumn(
                name: "Keep",
                table: "Images");
        }
    }
}
