using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Design;
using Microsoft.EntityFrameworkCore.Storage;
using Microsoft.EntityFrameworkCore.Storage.ValueConversion;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>The server's state, except for the segments' bytes: in SQLite, or (<see cref="PostgresDatabase"/>) in PostgreSQL.</summary>
internal class NacreDatabase : DbContext
{
    private readonly WriteGate gate;

    public NacreDatabase(DbContextOptions<NacreDatabase> options, WriteGate gate)
        : this((DbContextOptions)options, gate)
    {
    }

    protected NacreDatabase(DbContextOptions options, WriteGate gate)
        : base(options)
    {
        this.gate = gate;
        Database.AutoSavepointsEnabled = false; // a transaction in which a save failed is given up: two statements less for each save
    }

    public DbSet<SettingRow> Settings => Set<SettingRow>();

    public DbSet<UserRow> Users => Set<UserRow>();

    public DbSet<EnrolmentCodeRow> EnrolmentCodes => Set<EnrolmentCodeRow>();

    public DbSet<DeviceRow> Devices => Set<DeviceRow>();

    public DbSet<SegmentRow> Segments => Set<SegmentRow>();

    public DbSet<SegmentUseRow> SegmentUses => Set<SegmentUseRow>();

    public DbSet<ImageRow> Images => Set<ImageRow>();

    public DbSet<ReleaseRow> Releases => Set<ReleaseRow>();

    public DbSet<ContentsRow> Contents => Set<ContentsRow>();

    public DbSet<RecordingRow> Recordings => Set<RecordingRow>();

    public DbSet<BootPackRow> BootPacks => Set<BootPackRow>();
    public DbSet<CheckReportRow> CheckReports => Set<CheckReportRow>();

    public DbSet<DecisionRow> Decisions => Set<DecisionRow>();

    public DbSet<AdministratorRow> Administrators => Set<AdministratorRow>();

    public DbSet<AccountRow> Accounts => Set<AccountRow>();

    public DbSet<RecoveryCodeRow> RecoveryCodes => Set<RecoveryCodeRow>();

    public DbSet<SessionRow> Sessions => Set<SessionRow>();

    public DbSet<ThrottleRow> Throttles => Set<ThrottleRow>();

    public DbSet<FederatedRow> Federated => Set<FederatedRow>();

    public DbSet<SignInFlowRow> SignInFlows => Set<SignInFlowRow>();

    public DbSet<ChannelRow> Channels => Set<ChannelRow>();

    public DbSet<RolloutRow> Rollouts => Set<RolloutRow>();

    public DbSet<StartRow> Starts => Set<StartRow>();

    public DbSet<LivePcRow> LivePcs => Set<LivePcRow>();

    public DbSet<LivePcLayerRow> LivePcLayers => Set<LivePcLayerRow>();

    public DbSet<ReportRow> Reports => Set<ReportRow>();

    public DbSet<EntitlementRow> Entitlements => Set<EntitlementRow>();

    public DbSet<ShareRow> Shares => Set<ShareRow>();

    public DbSet<EscrowRow> Escrows => Set<EscrowRow>();

    public DbSet<LeaseRow> Leases => Set<LeaseRow>();

    public DbSet<LeasedReleaseRow> LeasedReleases => Set<LeasedReleaseRow>();

    public DbSet<AnchorRow> Anchors => Set<AnchorRow>();

    public DbSet<OrderRow> Orders => Set<OrderRow>();

    public DbSet<DeviceOrderRow> DeviceOrders => Set<DeviceOrderRow>();

    public DbSet<DeviceLogRow> DeviceLogs => Set<DeviceLogRow>();

    public DbSet<GroupRow> Groups => Set<GroupRow>();

    public DbSet<GroupMemberRow> GroupMembers => Set<GroupMemberRow>();

    public DbSet<PolicyRow> Policies => Set<PolicyRow>();

    public DbSet<PolicyAcknowledgementRow> PolicyAcknowledgements => Set<PolicyAcknowledgementRow>();

    public DbSet<AuditRow> Audit => Set<AuditRow>();

    /// <summary>Begins to write. One writer is let in at a time, on all servers of the database, from here to the commit: what is read inside does not change, as far
    /// as it is only written this way.</summary>
    public async Task<WriteTransaction> BeginWriteAsync(CancellationToken cancellationToken)
    {
        await gate.EnterAsync(cancellationToken);
        try
        {
            return new WriteTransaction(await BeginAloneAsync(cancellationToken), gate);
        }
        catch
        {
            gate.Leave();
            throw;
        }
    }

    /// <summary>Begins a transaction that no other server's writer is in. SQLite sees to that by itself.</summary>
    protected virtual Task<IDbContextTransaction> BeginAloneAsync(CancellationToken cancellationToken) => Database.BeginTransactionAsync(cancellationToken);

    /// <summary>Brings the database to this version, before its first use.</summary>
    /// <exception cref="NacreException">Unsupported: it is of a newer version.</exception>
    public virtual async Task PrepareAsync(CancellationToken cancellationToken)
    {
        await MigrateAsync(cancellationToken);
        await Database.ExecuteSqlRawAsync("PRAGMA journal_mode = WAL", cancellationToken);
        await Database.ExecuteSqlRawAsync(Revision.Sqlite(), cancellationToken);
    }

    protected async Task MigrateAsync(CancellationToken cancellationToken)
    {
        var known = Database.GetMigrations().ToHashSet(StringComparer.Ordinal);
        if ((await Database.GetAppliedMigrationsAsync(cancellationToken)).FirstOrDefault(one => !known.Contains(one)) is { } newer)
        {
            throw new NacreException(ErrorCatalogue.Unsupported, $"the database is of a newer version of nacre: it has the change '{newer}', which this one does not know");
        }

        await Database.MigrateAsync(cancellationToken);
    }

    protected override void ConfigureConventions(ModelConfigurationBuilder configurationBuilder) =>
        configurationBuilder.Properties<DateTimeOffset>().HaveConversion<UnixMilliseconds>();

    protected override void OnModelCreating(ModelBuilder modelBuilder)
    {
        modelBuilder.Entity<SettingRow>().ToTable("Settings").HasKey(row => row.Name);
        modelBuilder.Entity<UserRow>().ToTable("Users").HasKey(row => row.Name);
        modelBuilder.Entity<EnrolmentCodeRow>(entity =>
        {
            entity.ToTable("EnrolmentCodes").HasKey(row => row.Id);
            entity.HasOne<UserRow>().WithMany().HasForeignKey(row => row.User).OnDelete(DeleteBehavior.Restrict);
        });
        modelBuilder.Entity<DeviceRow>(entity =>
        {
            entity.ToTable("Devices").HasKey(row => row.Id);
            entity.HasOne<UserRow>().WithMany().HasForeignKey(row => row.User).OnDelete(DeleteBehavior.Restrict);
            entity.HasIndex(row => new { row.KeyX, row.KeyY }).IsUnique();
        });
        modelBuilder.Entity<SegmentRow>().ToTable("Segments").HasKey(row => row.Name);
        modelBuilder.Entity<ImageRow>().ToTable("Images").HasKey(row => row.Name);
        modelBuilder.Entity<ReleaseRow>(entity =>
        {
            entity.ToTable("Releases").HasKey(row => new { row.Image, row.Version });
            entity.Property(row => row.PublishedBy).HasDefaultValue(Roles.Administrator);
            entity.HasOne<ImageRow>().WithMany().HasForeignKey(row => row.Image).OnDelete(DeleteBehavior.Restrict);
        });
        modelBuilder.Entity<SegmentUseRow>(entity =>
        {
            entity.ToTable("SegmentUses").HasKey(row => new { row.Image, row.Version, row.Segment });
            entity.HasOne<ReleaseRow>().WithMany().HasForeignKey(row => new { row.Image, row.Version }).OnDelete(DeleteBehavior.Cascade);
            entity.HasOne<SegmentRow>().WithMany().HasForeignKey(row => row.Segment).OnDelete(DeleteBehavior.Restrict);
        });
        modelBuilder.Entity<ContentsRow>(entity =>
        {
            entity.ToTable("Contents").HasKey(row => new { row.Image, row.Version });
            entity.HasOne<ReleaseRow>().WithMany().HasForeignKey(row => new { row.Image, row.Version }).OnDelete(DeleteBehavior.Restrict);
        });
        modelBuilder.Entity<RecordingRow>(entity =>
        {
            entity.ToTable("Recordings").HasKey(row => new { row.Image, row.Version, row.DeviceId });
            entity.Ignore(row => row.Ranges);
            entity.HasOne<ReleaseRow>().WithMany().HasForeignKey(row => new { row.Image, row.Version }).OnDelete(DeleteBehavior.Cascade);
            entity.HasOne<DeviceRow>().WithMany().HasForeignKey(row => row.DeviceId).OnDelete(DeleteBehavior.Cascade);
        });
        modelBuilder.Entity<BootPackRow>(entity =>
        {
            entity.ToTable("BootPacks").HasKey(row => new { row.Image, row.Version });
            entity.HasOne<ReleaseRow>().WithMany().HasForeignKey(row => new { row.Image, row.Version }).OnDelete(DeleteBehavior.Cascade);
        });
        modelBuilder.Entity<CheckReportRow>(entity =>
        {
            entity.ToTable("CheckReports").HasKey(row => new { row.Image, row.Version });
            entity.HasOne<ReleaseRow>().WithMany().HasForeignKey(row => new { row.Image, row.Version }).OnDelete(DeleteBehavior.Cascade);
        });
        modelBuilder.Entity<DecisionRow>(entity =>
        {
            entity.ToTable("Decisions").HasKey(row => new { row.Image, row.Version, row.Administrator });
            entity.HasOne<ReleaseRow>().WithMany().HasForeignKey(row => new { row.Image, row.Version }).OnDelete(DeleteBehavior.Cascade);
        });
        modelBuilder.Entity<AdministratorRow>(entity =>
        {
            entity.ToTable("Administrators").HasKey(row => row.Name);
            entity.HasIndex(row => row.TokenHash).IsUnique();
            entity.Property(row => row.Roles).HasDefaultValue(Roles.Administrator); // of before there were roles
            entity.Ignore(row => row.RoleList);
        });
        modelBuilder.Entity<AccountRow>(entity =>
        {
            entity.ToTable("Accounts").HasKey(row => row.Name);
            entity.HasIndex(row => row.InvitationHash).IsUnique();
        });
        modelBuilder.Entity<RecoveryCodeRow>(entity =>
        {
            entity.ToTable("RecoveryCodes").HasKey(row => new { row.Person, row.Hash });
            entity.HasOne<AccountRow>().WithMany().HasForeignKey(row => row.Person).OnDelete(DeleteBehavior.Cascade);
        });
        modelBuilder.Entity<SessionRow>(entity =>
        {
            entity.ToTable("Sessions").HasKey(row => row.Id);
            entity.HasIndex(row => row.TokenHash).IsUnique();
            entity.HasIndex(row => row.Person);
        });
        modelBuilder.Entity<ThrottleRow>(entity =>
        {
            entity.ToTable("Throttles").HasKey(row => row.Key);
            entity.HasIndex(row => row.At);
        });
        modelBuilder.Entity<FederatedRow>(entity =>
        {
            entity.ToTable("Federated").HasKey(row => row.Subject);
            entity.HasIndex(row => row.Name).IsUnique();
            entity.Ignore(row => row.RoleList);
        });
        modelBuilder.Entity<SignInFlowRow>(entity =>
        {
            entity.ToTable("SignInFlows").HasKey(row => row.Id);
            entity.HasIndex(row => row.ExpiresAt);
        });
        modelBuilder.Entity<ChannelRow>(entity =>
        {
            entity.ToTable("Channels").HasKey(row => new { row.Image, row.Name });
            entity.HasOne<ReleaseRow>().WithMany().HasForeignKey(row => new { row.Image, row.Version }).OnDelete(DeleteBehavior.Restrict);
        });
        modelBuilder.Entity<RolloutRow>(entity =>
        {
            entity.ToTable("Rollouts").HasKey(row => new { row.Image, row.Channel });
            entity.Property(row => row.State).HasConversion<string>();
            entity.HasOne<ChannelRow>().WithMany().HasForeignKey(row => new { row.Image, row.Channel }).OnDelete(DeleteBehavior.Restrict);
            entity.HasOne<ReleaseRow>().WithMany().HasForeignKey(row => new { row.Image, row.Version }).OnDelete(DeleteBehavior.Restrict);
        });
        modelBuilder.Entity<StartRow>(entity =>
        {
            entity.ToTable("Starts").HasKey(row => new { row.DeviceId, row.LivePc, row.Image, row.Version });
            entity.HasIndex(row => new { row.Image, row.Version });
            entity.HasOne<DeviceRow>().WithMany().HasForeignKey(row => row.DeviceId).OnDelete(DeleteBehavior.Restrict);
            entity.HasOne<LivePcRow>().WithMany().HasForeignKey(row => row.LivePc).OnDelete(DeleteBehavior.Restrict);
            entity.HasOne<ReleaseRow>().WithMany().HasForeignKey(row => new { row.Image, row.Version }).OnDelete(DeleteBehavior.Cascade);
        });
        modelBuilder.Entity<LivePcRow>(entity =>
        {
            entity.ToTable("LivePcs").HasKey(row => row.Name);
            entity.HasOne<ImageRow>().WithMany().HasForeignKey(row => row.Image).OnDelete(DeleteBehavior.Restrict);
        });
        modelBuilder.Entity<LivePcLayerRow>(entity =>
        {
            entity.ToTable("LivePcLayers").HasKey(row => new { row.LivePc, row.Position });
            entity.HasOne<LivePcRow>().WithMany().HasForeignKey(row => row.LivePc).OnDelete(DeleteBehavior.Restrict);
            entity.HasOne<ImageRow>().WithMany().HasForeignKey(row => row.Image).OnDelete(DeleteBehavior.Restrict);
        });
        modelBuilder.Entity<ReportRow>(entity =>
        {
            entity.ToTable("Reports").HasKey(row => new { row.DeviceId, row.Id });
            entity.HasOne<DeviceRow>().WithMany().HasForeignKey(row => row.DeviceId).OnDelete(DeleteBehavior.Restrict);
            entity.HasOne<LivePcRow>().WithMany().HasForeignKey(row => row.LivePc).OnDelete(DeleteBehavior.Restrict);
        });
        modelBuilder.Entity<EntitlementRow>(entity =>
        {
            entity.ToTable("Entitlements").HasKey(row => new { row.LivePc, row.User });
            entity.HasOne<LivePcRow>().WithMany().HasForeignKey(row => row.LivePc).OnDelete(DeleteBehavior.Restrict);
            entity.HasOne<UserRow>().WithMany().HasForeignKey(row => row.User).OnDelete(DeleteBehavior.Restrict);
        });
        modelBuilder.Entity<ShareRow>(entity =>
        {
            entity.ToTable("Shares").HasKey(row => new { row.DeviceId, row.LivePc });
            entity.HasOne<DeviceRow>().WithMany().HasForeignKey(row => row.DeviceId).OnDelete(DeleteBehavior.Restrict);
            entity.HasOne<LivePcRow>().WithMany().HasForeignKey(row => row.LivePc).OnDelete(DeleteBehavior.Restrict);
        });
        modelBuilder.Entity<EscrowRow>(entity =>
        {
            entity.ToTable("Escrows").HasKey(row => new { row.DeviceId, row.LivePc });
            entity.HasOne<DeviceRow>().WithMany().HasForeignKey(row => row.DeviceId).OnDelete(DeleteBehavior.Restrict);
            entity.HasOne<LivePcRow>().WithMany().HasForeignKey(row => row.LivePc).OnDelete(DeleteBehavior.Restrict);
        });
        modelBuilder.Entity<LeaseRow>(entity =>
        {
            entity.ToTable("Leases").HasKey(row => row.Id);
            entity.HasOne<DeviceRow>().WithMany().HasForeignKey(row => row.DeviceId).OnDelete(DeleteBehavior.Restrict);
        });
        modelBuilder.Entity<LeasedReleaseRow>(entity =>
        {
            entity.ToTable("LeasedReleases").HasKey(row => new { row.LeaseId, row.Image, row.Version });
            entity.HasOne<LeaseRow>().WithMany().HasForeignKey(row => row.LeaseId).OnDelete(DeleteBehavior.Cascade);
            entity.HasIndex(row => new { row.Image, row.Version });
        });
        modelBuilder.Entity<AnchorRow>(entity =>
        {
            entity.ToTable("Anchors").HasKey(row => new { row.DeviceId, row.LivePc, row.Layer });
            entity.HasOne<DeviceRow>().WithMany().HasForeignKey(row => row.DeviceId).OnDelete(DeleteBehavior.Restrict);
            entity.HasOne<LivePcRow>().WithMany().HasForeignKey(row => row.LivePc).OnDelete(DeleteBehavior.Restrict);
        });
        modelBuilder.Entity<OrderRow>(entity =>
        {
            entity.ToTable("Orders").HasKey(row => row.Id);
            entity.Property(row => row.Depth).HasConversion<string>();
            entity.Property(row => row.State).HasConversion<string>();
            entity.HasIndex(row => new { row.DeviceId, row.LivePc });
            entity.HasOne<DeviceRow>().WithMany().HasForeignKey(row => row.DeviceId).OnDelete(DeleteBehavior.Restrict);
            entity.HasOne<LivePcRow>().WithMany().HasForeignKey(row => row.LivePc).OnDelete(DeleteBehavior.Restrict);
        });
        modelBuilder.Entity<DeviceOrderRow>(entity =>
        {
            entity.ToTable("DeviceOrders").HasKey(row => row.Id);
            entity.Ignore(row => row.IsOpen).Ignore(row => row.Word).Ignore(row => row.Words);
            entity.Property(row => row.Act).HasConversion<string>();
            entity.Property(row => row.Mode).HasConversion<string>();
            entity.Property(row => row.Scope).HasConversion<string>();
            entity.Property(row => row.State).HasConversion<string>();
            entity.HasIndex(row => row.DeviceId);
            entity.HasIndex(row => row.Number);
            entity.HasOne<DeviceRow>().WithMany().HasForeignKey(row => row.DeviceId).OnDelete(DeleteBehavior.Restrict);
        });
        modelBuilder.Entity<DeviceLogRow>(entity =>
        {
            entity.ToTable("DeviceLogs").HasKey(row => row.OrderId);
            entity.HasOne<DeviceOrderRow>().WithMany().HasForeignKey(row => row.OrderId).OnDelete(DeleteBehavior.Restrict);
        });
        modelBuilder.Entity<GroupRow>().ToTable("Groups").HasKey(row => row.Name);
        modelBuilder.Entity<GroupMemberRow>(entity =>
        {
            entity.ToTable("GroupMembers").HasKey(row => new { row.Group, row.User });
            entity.HasOne<GroupRow>().WithMany().HasForeignKey(row => row.Group).OnDelete(DeleteBehavior.Cascade);
            entity.HasOne<UserRow>().WithMany().HasForeignKey(row => row.User).OnDelete(DeleteBehavior.Restrict);
        });
        modelBuilder.Entity<PolicyRow>().ToTable("Policies").HasKey(row => row.Level);
        modelBuilder.Entity<PolicyAcknowledgementRow>(entity =>
        {
            entity.ToTable("PolicyAcknowledgements").HasKey(row => new { row.DeviceId, row.LivePc });
            entity.Property(row => row.HostChecks).HasDefaultValue("[]");
            entity.HasOne<DeviceRow>().WithMany().HasForeignKey(row => row.DeviceId).OnDelete(DeleteBehavior.Restrict);
            entity.HasOne<LivePcRow>().WithMany().HasForeignKey(row => row.LivePc).OnDelete(DeleteBehavior.Restrict);
        });
        modelBuilder.Entity<AuditRow>(entity =>
        {
            entity.ToTable("Audit").HasKey(row => row.Sequence);
            entity.Property(row => row.Sequence).ValueGeneratedNever();
            entity.Property(row => row.Result).HasConversion<string>();
            entity.HasIndex(row => new { row.Actor, row.Sequence });
            entity.HasIndex(row => new { row.Action, row.Sequence });
            entity.HasIndex(row => row.At);
        });
    }

    private sealed class UnixMilliseconds() : ValueConverter<DateTimeOffset, long>(
        time => time.ToUnixTimeMilliseconds(), milliseconds => DateTimeOffset.FromUnixTimeMilliseconds(milliseconds));
}

/// <summary>Lets <c>dotnet ef</c> write migrations for SQLite.</summary>
internal sealed class NacreDatabaseDesign : IDesignTimeDbContextFactory<NacreDatabase>
{
    public NacreDatabase CreateDbContext(string[] args) =>
        new(new DbContextOptionsBuilder<NacreDatabase>().UseSqlite("Data Source=:memory:").Options, new WriteGate());
}

/// <summary>A single value by name.</summary>
internal sealed class SettingRow
{
    public required string Name { get; init; }

    public required string Value { get; set; }
}

internal static class Clock
{
    /// <summary>Now, to the millisecond: what is stored and what is answered are equal.</summary>
    public static DateTimeOffset Now(this TimeProvider time) => DateTimeOffset.FromUnixTimeMilliseconds(time.GetUtcNow().ToUnixTimeMilliseconds());
}
