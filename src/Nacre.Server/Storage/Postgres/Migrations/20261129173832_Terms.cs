using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace Nacre.Server.Storage.Postgres.Migrations
{
    /// <inheritdoc />
    public partial class Terms : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.AddColumn<string>(
                name: "AcceptedTerms",
                table: "PolicyAcknowledgements",
                type: "text",
                nullable: true,
                collation: "C");
        }

        /// <inheritdoc />
        protected override void Down(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropColumn(
                name: "AcceptedTerms",
                table: "PolicyAcknowledgements");
        }
    }
}
