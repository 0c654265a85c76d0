using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace Nacre.Server.Storage.Migrations
{
    /// <inheritdoc />
    public partial class Audit : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.AddColumn<int>(
                name: "Format",
                table: "Audit",
                type: "INTEGER",
                nullable: false,
                defaultValue: 1);

            migrationBuilder.AddColumn<string>(
                name: "Result",
                table: "Audit",
                type: "TEXT",
                nullable: true);

            migrationBuilder.AddColumn<string>(
                name: "Source",
                table: "Audit",
                type: "TEXT",
                nullable: true);

            migrationBuilder.CreateIndex(
                name: "IX_Audit_Action_Sequence",
                table: "Audit",
                columns: new[] { "Action", "Sequence" });

            migrationBuilder.CreateIndex(
                name: "IX_Audit_Actor_Sequence",
                table: "Audit",
                columns: new[] { "Actor", "Sequence" });

            migrationBuilder.CreateIndex(
                name: "IX_Audit_At",
                table: "Audit",
                column: "At");
        }

        /// <inheritdoc />
        protected override void Down(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropIndex(
                name: "IX_Audit_Action_Sequence",
                table: "Audit");

            migrationBuilder.DropIndex(
                name: "IX_Audit_Actor_Sequence",
                table: "Audit");

            migrationBuilder.DropIndex(
                name: "IX_Audit_At",
                table: "Audit");

            migrationBuilder.DropColumn(
                name: "Format",
                table: "Audit");

            migrationBuilder.DropColumn(
                name: "Result",
                table: "Audit");

            migrationBuilder.DropColumn(
                name: "Source",
                table: "Audit");
        }
    }
}
