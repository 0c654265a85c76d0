using System;
using System.Collections.Generic;
using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace Nacre.Server.Storage.Postgres.Migrations
{
    /// <inheritdoc />
    public partial class First : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.CreateTable(
                name: "Administrators",
                columns: table => new
                {
                    Name = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    TokenHash = table.Column<byte[]>(type: "bytea", nullable: false),
                    CreatedAt = table.Column<long>(type: "bigint", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Administrators", x => x.Name);
                });

            migrationBuilder.CreateTable(
                name: "Audit",
                columns: table => new
                {
                    Sequence = table.Column<long>(type: "bigint", nullable: false),
                    Format = table.Column<int>(type: "integer", nullable: false),
                    At = table.Column<long>(type: "bigint", nullable: false),
                    Actor = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Source = table.Column<string>(type: "text", nullable: true, collation: "C"),
                    Action = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Subject = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Result = table.Column<string>(type: "text", nullable: true, collation: "C"),
                    Detail = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Hash = table.Column<byte[]>(type: "bytea", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Audit", x => x.Sequence);
                });

            migrationBuilder.CreateTable(
                name: "Images",
                columns: table => new
                {
                    Name = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    LatestVersion = table.Column<int>(type: "integer", nullable: false),
                    Kind = table.Column<int>(type: "integer", nullable: false),
                    Keep = table.Column<int>(type: "integer", nullable: true)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Images", x => x.Name);
                });

            migrationBuilder.CreateTable(
                name: "Segments",
                columns: table => new
                {
                    Name = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Length = table.Column<long>(type: "bigint", nullable: false),
                    Sha256 = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    NeededAt = table.Column<long>(type: "bigint", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Segments", x => x.Name);
                });

            migrationBuilder.CreateTable(
                name: "Settings",
                columns: table => new
                {
                    Name = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Value = table.Column<string>(type: "text", nullable: false, collation: "C")
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Settings", x => x.Name);
                });

            migrationBuilder.CreateTable(
                name: "Users",
                columns: table => new
                {
                    Name = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    DisplayName = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    CreatedAt = table.Column<long>(type: "bigint", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Users", x => x.Name);
                });

            migrationBuilder.CreateTable(
                name: "LivePcs",
                columns: table => new
                {
                    Name = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Image = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Channel = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Policy = table.Column<string>(type: "text", nullable: true, collation: "C")
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_LivePcs", x => x.Name);
                    table.ForeignKey(
                        name: "FK_LivePcs_Images_Image",
                        column: x => x.Image,
                        principalTable: "Images",
                        principalColumn: "Name",
                        onDelete: ReferentialAction.Restrict);
                });

            migrationBuilder.CreateTable(
                name: "Releases",
                columns: table => new
                {
                    Image = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Version = table.Column<int>(type: "integer", nullable: false),
                    PublishedAt = table.Column<long>(type: "bigint", nullable: false),
                    PublishedBy = table.Column<string>(type: "text", nullable: false, defaultValue: "administrator", collation: "C"),
                    Size = table.Column<long>(type: "bigint", nullable: false),
                    StoredSize = table.Column<long>(type: "bigint", nullable: false),
                    Manifest = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    ManifestHash = table.Column<byte[]>(type: "bytea", nullable: false),
                    Key = table.Column<byte[]>(type: "bytea", nullable: false),
                    Digest = table.Column<string>(type: "text", nullable: true, collation: "C"),
                    BuiltOn = table.Column<string>(type: "text", nullable: true, collation: "C")
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Releases", x => new { x.Image, x.Version });
                    table.ForeignKey(
                        name: "FK_Releases_Images_Image",
                        column: x => x.Image,
                        principalTable: "Images",
                        principalColumn: "Name",
                        onDelete: ReferentialAction.Restrict);
                });

            migrationBuilder.CreateTable(
                name: "Devices",
                columns: table => new
                {
                    Id = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Name = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    User = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    KeyX = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    KeyY = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    EnrolledAt = table.Column<long>(type: "bigint", nullable: false),
                    LastSeenAt = table.Column<long>(type: "bigint", nullable: true),
                    RevokedAt = table.Column<long>(type: "bigint", nullable: true)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Devices", x => x.Id);
                    table.ForeignKey(
                        name: "FK_Devices_Users_User",
                        column: x => x.User,
                        principalTable: "Users",
                        principalColumn: "Name",
                        onDelete: ReferentialAction.Restrict);
                });

            migrationBuilder.CreateTable(
                name: "EnrolmentCodes",
                columns: table => new
                {
                    Id = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    User = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    ExpiresAt = table.Column<long>(type: "bigint", nullable: false),
                    Secret = table.Column<byte[]>(type: "bytea", nullable: true),
                    WrongProofs = table.Column<int>(type: "integer", nullable: false),
                    UsedAt = table.Column<long>(type: "bigint", nullable: true),
                    Request = table.Column<byte[]>(type: "bytea", nullable: true),
                    Answer = table.Column<string>(type: "text", nullable: true, collation: "C")
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_EnrolmentCodes", x => x.Id);
                    table.ForeignKey(
                        name: "FK_EnrolmentCodes_Users_User",
                        column: x => x.User,
                        principalTable: "Users",
                        principalColumn: "Name",
                        onDelete: ReferentialAction.Restrict);
                });

            migrationBuilder.CreateTable(
                name: "Entitlements",
                columns: table => new
                {
                    LivePc = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    User = table.Column<string>(type: "text", nullable: false, collation: "C")
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Entitlements", x => new { x.LivePc, x.User });
                    table.ForeignKey(
                        name: "FK_Entitlements_LivePcs_LivePc",
                        column: x => x.LivePc,
                        principalTable: "LivePcs",
                        principalColumn: "Name",
                        onDelete: ReferentialAction.Restrict);
                    table.ForeignKey(
                        name: "FK_Entitlements_Users_User",
                        column: x => x.User,
                        principalTable: "Users",
                        principalColumn: "Name",
                        onDelete: ReferentialAction.Restrict);
                });

            migrationBuilder.CreateTable(
                name: "LivePcLayers",
                columns: table => new
                {
                    LivePc = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Position = table.Column<int>(type: "integer", nullable: false),
                    Image = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Channel = table.Column<string>(type: "text", nullable: false, collation: "C")
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
                name: "BootPacks",
                columns: table => new
                {
                    Image = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Version = table.Column<int>(type: "integer", nullable: false),
                    Segment = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Chunks = table.Column<int>(type: "integer", nullable: false),
                    Length = table.Column<long>(type: "bigint", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_BootPacks", x => new { x.Image, x.Version });
                    table.ForeignKey(
                        name: "FK_BootPacks_Releases_Image_Version",
                        columns: x => new { x.Image, x.Version },
                        principalTable: "Releases",
                        principalColumns: new[] { "Image", "Version" },
                        onDelete: ReferentialAction.Cascade);
                });

            migrationBuilder.CreateTable(
                name: "Channels",
                columns: table => new
                {
                    Image = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Name = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Version = table.Column<int>(type: "integer", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Channels", x => new { x.Image, x.Name });
                    table.ForeignKey(
                        name: "FK_Channels_Releases_Image_Version",
                        columns: x => new { x.Image, x.Version },
                        principalTable: "Releases",
                        principalColumns: new[] { "Image", "Version" },
                        onDelete: ReferentialAction.Restrict);
                });

            migrationBuilder.CreateTable(
                name: "CheckReports",
                columns: table => new
                {
                    Image = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Version = table.Column<int>(type: "integer", nullable: false),
                    Report = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    ReportHash = table.Column<byte[]>(type: "bytea", nullable: false),
                    Spdx = table.Column<byte[]>(type: "bytea", nullable: true),
                    CycloneDx = table.Column<byte[]>(type: "bytea", nullable: true)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_CheckReports", x => new { x.Image, x.Version });
                    table.ForeignKey(
                        name: "FK_CheckReports_Releases_Image_Version",
                        columns: x => new { x.Image, x.Version },
                        principalTable: "Releases",
                        principalColumns: new[] { "Image", "Version" },
                        onDelete: ReferentialAction.Cascade);
                });

            migrationBuilder.CreateTable(
                name: "Contents",
                columns: table => new
                {
                    Image = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Version = table.Column<int>(type: "integer", nullable: false),
                    Contents = table.Column<byte[]>(type: "bytea", nullable: false)
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
                name: "Decisions",
                columns: table => new
                {
                    Image = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Version = table.Column<int>(type: "integer", nullable: false),
                    Administrator = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Approved = table.Column<bool>(type: "boolean", nullable: false),
                    Reason = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    At = table.Column<long>(type: "bigint", nullable: false),
                    ReportHash = table.Column<byte[]>(type: "bytea", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Decisions", x => new { x.Image, x.Version, x.Administrator });
                    table.ForeignKey(
                        name: "FK_Decisions_Releases_Image_Version",
                        columns: x => new { x.Image, x.Version },
                        principalTable: "Releases",
                        principalColumns: new[] { "Image", "Version" },
                        onDelete: ReferentialAction.Cascade);
                });

            migrationBuilder.CreateTable(
                name: "SegmentUses",
                columns: table => new
                {
                    Image = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Version = table.Column<int>(type: "integer", nullable: false),
                    Segment = table.Column<string>(type: "text", nullable: false, collation: "C")
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

            migrationBuilder.CreateTable(
                name: "Anchors",
                columns: table => new
                {
                    DeviceId = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    LivePc = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Layer = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Volume = table.Column<Guid>(type: "uuid", nullable: false),
                    Epoch = table.Column<int>(type: "integer", nullable: false),
                    Position = table.Column<long>(type: "bigint", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Anchors", x => new { x.DeviceId, x.LivePc, x.Layer });
                    table.ForeignKey(
                        name: "FK_Anchors_Devices_DeviceId",
                        column: x => x.DeviceId,
                        principalTable: "Devices",
                        principalColumn: "Id",
                        onDelete: ReferentialAction.Restrict);
                    table.ForeignKey(
                        name: "FK_Anchors_LivePcs_LivePc",
                        column: x => x.LivePc,
                        principalTable: "LivePcs",
                        principalColumn: "Name",
                        onDelete: ReferentialAction.Restrict);
                });

            migrationBuilder.CreateTable(
                name: "Leases",
                columns: table => new
                {
                    Id = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    DeviceId = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    LivePc = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Version = table.Column<int>(type: "integer", nullable: false),
                    InstalledVersion = table.Column<int>(type: "integer", nullable: true),
                    IssuedAt = table.Column<long>(type: "bigint", nullable: false),
                    ExpiresAt = table.Column<long>(type: "bigint", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Leases", x => x.Id);
                    table.ForeignKey(
                        name: "FK_Leases_Devices_DeviceId",
                        column: x => x.DeviceId,
                        principalTable: "Devices",
                        principalColumn: "Id",
                        onDelete: ReferentialAction.Restrict);
                });

            migrationBuilder.CreateTable(
                name: "Orders",
                columns: table => new
                {
                    Id = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    DeviceId = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    LivePc = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Depth = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    To = table.Column<string>(type: "text", nullable: true, collation: "C"),
                    Before = table.Column<long>(type: "bigint", nullable: true),
                    OrderedAt = table.Column<long>(type: "bigint", nullable: false),
                    State = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    EndedAt = table.Column<long>(type: "bigint", nullable: true),
                    Detail = table.Column<string>(type: "text", nullable: false, collation: "C")
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Orders", x => x.Id);
                    table.ForeignKey(
                        name: "FK_Orders_Devices_DeviceId",
                        column: x => x.DeviceId,
                        principalTable: "Devices",
                        principalColumn: "Id",
                        onDelete: ReferentialAction.Restrict);
                    table.ForeignKey(
                        name: "FK_Orders_LivePcs_LivePc",
                        column: x => x.LivePc,
                        principalTable: "LivePcs",
                        principalColumn: "Name",
                        onDelete: ReferentialAction.Restrict);
                });

            migrationBuilder.CreateTable(
                name: "Recordings",
                columns: table => new
                {
                    Image = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Version = table.Column<int>(type: "integer", nullable: false),
                    DeviceId = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    ReceivedAt = table.Column<long>(type: "bigint", nullable: false),
                    Chunks = table.Column<byte[]>(type: "bytea", nullable: false),
                    IsTrusted = table.Column<bool>(type: "boolean", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Recordings", x => new { x.Image, x.Version, x.DeviceId });
                    table.ForeignKey(
                        name: "FK_Recordings_Devices_DeviceId",
                        column: x => x.DeviceId,
                        principalTable: "Devices",
                        principalColumn: "Id",
                        onDelete: ReferentialAction.Cascade);
                    table.ForeignKey(
                        name: "FK_Recordings_Releases_Image_Version",
                        columns: x => new { x.Image, x.Version },
                        principalTable: "Releases",
                        principalColumns: new[] { "Image", "Version" },
                        onDelete: ReferentialAction.Cascade);
                });

            migrationBuilder.CreateTable(
                name: "Reports",
                columns: table => new
                {
                    DeviceId = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Id = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    LivePc = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    ReceivedAt = table.Column<long>(type: "bigint", nullable: false),
                    Report = table.Column<string>(type: "text", nullable: false, collation: "C")
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

            migrationBuilder.CreateTable(
                name: "Shares",
                columns: table => new
                {
                    DeviceId = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    LivePc = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Secret = table.Column<byte[]>(type: "bytea", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Shares", x => new { x.DeviceId, x.LivePc });
                    table.ForeignKey(
                        name: "FK_Shares_Devices_DeviceId",
                        column: x => x.DeviceId,
                        principalTable: "Devices",
                        principalColumn: "Id",
                        onDelete: ReferentialAction.Restrict);
                    table.ForeignKey(
                        name: "FK_Shares_LivePcs_LivePc",
                        column: x => x.LivePc,
                        principalTable: "LivePcs",
                        principalColumn: "Name",
                        onDelete: ReferentialAction.Restrict);
                });

            migrationBuilder.CreateTable(
                name: "Starts",
                columns: table => new
                {
                    DeviceId = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    LivePc = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Image = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Version = table.Column<int>(type: "integer", nullable: false),
                    HealthyAt = table.Column<long>(type: "bigint", nullable: true),
                    FailedAt = table.Column<long>(type: "bigint", nullable: true)
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

            migrationBuilder.CreateTable(
                name: "Rollouts",
                columns: table => new
                {
                    Image = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Channel = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Version = table.Column<int>(type: "integer", nullable: false),
                    State = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Steps = table.Column<List<int>>(type: "integer[]", nullable: false),
                    Step = table.Column<int>(type: "integer", nullable: false),
                    StepSince = table.Column<long>(type: "bigint", nullable: false),
                    StepHours = table.Column<int>(type: "integer", nullable: false),
                    StopAtPercent = table.Column<int>(type: "integer", nullable: false),
                    StopAfter = table.Column<int>(type: "integer", nullable: false),
                    CountedFrom = table.Column<long>(type: "bigint", nullable: false)
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
                name: "LeasedReleases",
                columns: table => new
                {
                    LeaseId = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Image = table.Column<string>(type: "text", nullable: false, collation: "C"),
                    Version = table.Column<int>(type: "integer", nullable: false)
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

            migrationBuilder.CreateIndex(
                name: "IX_Administrators_TokenHash",
                table: "Administrators",
                column: "TokenHash",
                unique: true);

            migrationBuilder.CreateIndex(
                name: "IX_Anchors_LivePc",
                table: "Anchors",
                column: "LivePc");

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

            migrationBuilder.CreateIndex(
                name: "IX_Channels_Image_Version",
                table: "Channels",
                columns: new[] { "Image", "Version" });

            migrationBuilder.CreateIndex(
                name: "IX_Devices_KeyX_KeyY",
                table: "Devices",
                columns: new[] { "KeyX", "KeyY" },
                unique: true);

            migrationBuilder.CreateIndex(
                name: "IX_Devices_User",
                table: "Devices",
                column: "User");

            migrationBuilder.CreateIndex(
                name: "IX_EnrolmentCodes_User",
                table: "EnrolmentCodes",
                column: "User");

            migrationBuilder.CreateIndex(
                name: "IX_Entitlements_User",
                table: "Entitlements",
                column: "User");

            migrationBuilder.CreateIndex(
                name: "IX_LeasedReleases_Image_Version",
                table: "LeasedReleases",
                columns: new[] { "Image", "Version" });

            migrationBuilder.CreateIndex(
                name: "IX_Leases_DeviceId",
                table: "Leases",
                column: "DeviceId");

            migrationBuilder.CreateIndex(
                name: "IX_LivePcLayers_Image",
                table: "LivePcLayers",
                column: "Image");

            migrationBuilder.CreateIndex(
                name: "IX_LivePcs_Image",
                table: "LivePcs",
                column: "Image");

            migrationBuilder.CreateIndex(
                name: "IX_Orders_DeviceId_LivePc",
                table: "Orders",
                columns: new[] { "DeviceId", "LivePc" });

            migrationBuilder.CreateIndex(
                name: "IX_Orders_LivePc",
                table: "Orders",
                column: "LivePc");

            migrationBuilder.CreateIndex(
                name: "IX_Recordings_DeviceId",
                table: "Recordings",
                column: "DeviceId");

            migrationBuilder.CreateIndex(
                name: "IX_Reports_LivePc",
                table: "Reports",
                column: "LivePc");

            migrationBuilder.CreateIndex(
                name: "IX_Rollouts_Image_Version",
                table: "Rollouts",
                columns: new[] { "Image", "Version" });

            migrationBuilder.CreateIndex(
                name: "IX_SegmentUses_Segment",
                table: "SegmentUses",
                column: "Segment");

            migrationBuilder.CreateIndex(
                name: "IX_Shares_LivePc",
                table: "Shares",
                column: "LivePc");

            migrationBuilder.CreateIndex(
                name: "IX_Starts_Image_Version",
                table: "Starts",
                columns: new[] { "Image", "Version" });

            migrationBuilder.CreateIndex(
                name: "IX_Starts_LivePc",
                table: "Starts",
                column: "LivePc");

            // Append-only: a line of the audit log is never changed or removed.
            migrationBuilder.Sql(
                """
                CREATE FUNCTION "RefuseAuditChange"() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$the audit log is append-only$$; END';
                CREATE TRIGGER "AuditIsNotChanged" BEFORE UPDATE OR DELETE ON "Audit" FOR EACH ROW EXECUTE FUNCTION "RefuseAuditChange"();
                CREATE TRIGGER "AuditIsNotRemoved" BEFORE TRUNCATE ON "Audit" FOR EACH STATEMENT EXECUTE FUNCTION "RefuseAuditChange"();
                """);
        }

        /// <inheritdoc />
        protected override void Down(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropTable(
                name: "Administrators");

            migrationBuilder.DropTable(
                name: "Anchors");

            migrationBuilder.DropTable(
                name: "Audit");

            migrationBuilder.DropTable(
                name: "BootPacks");

            migrationBuilder.DropTable(
                name: "CheckReports");

            migrationBuilder.DropTable(
                name: "Contents");

            migrationBuilder.DropTable(
                name: "Decisions");

            migrationBuilder.DropTable(
                name: "EnrolmentCodes");

            migrationBuilder.DropTable(
                name: "Entitlements");

            migrationBuilder.DropTable(
                name: "LeasedReleases");

            migrationBuilder.DropTable(
                name: "LivePcLayers");

            migrationBuilder.DropTable(
                name: "Orders");

            migrationBuilder.DropTable(
                name: "Recordings");

            migrationBuilder.DropTable(
                name: "Reports");

            migrationBuilder.DropTable(
                name: "Rollouts");

            migrationBuilder.DropTable(
                name: "SegmentUses");

            migrationBuilder.DropTable(
                name: "Settings");

            migrationBuilder.DropTable(
                name: "Shares");

            migrationBuilder.DropTable(
                name: "Starts");

            migrationBuilder.DropTable(
                name: "Leases");

            migrationBuilder.DropTable(
                name: "Channels");

            migrationBuilder.DropTable(
                name: "Segments");

            migrationBuilder.DropTable(
                name: "LivePcs");

            migrationBuilder.DropTable(
                name: "Devices");

            migrationBuilder.DropTable(
                name: "Releases");

            migrationBuilder.DropTable(
                name: "Users");

            migrationBuilder.DropTable(
                name: "Images");

            migrationBuilder.Sql("DROP FUNCTION \"RefuseAuditChange\"()");
        }
    }
}
