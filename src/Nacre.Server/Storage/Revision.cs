using Microsoft.EntityFrameworkCore;

namespace Nacre.Server;

/// <summary>
/// A word that changes with everything that a lease is made of, but for what is the device's own: while it is the same, a renewal would give nothing else. The database
/// changes it by triggers, whatever writes. It is random, not counted: a server restored from a backup does not come to one again that a device has seen.
/// </summary>
internal static class Revision
{
    public const string Setting = "revision";

    /// <summary>Made at each start, and not by a migration: SQLite drops a table's triggers when a later migration makes the table anew.</summary>
    private static readonly string[] Tables =
        ["Policies", "Groups", "GroupMembers", "Entitlements", "LivePcs", "LivePcLayers", "Channels", "Rollouts", "BootPacks"];

    private static readonly string[] Settings = [Origins.Setting, Recovery.Setting], Events = ["INSERT", "UPDATE", "DELETE"];

    public static Task<string> ReadAsync(NacreDatabase database, CancellationToken cancellationToken) =>
        database.Settings.Where(row => row.Name == Setting).Select(row => row.Value).SingleAsync(cancellationToken);

    /// <summary>Changes it, where no trigger does: some of what devices take with a lease is written by the clock too.</summary>
    public static Task ChangeAsync(NacreDatabase database, CancellationToken cancellationToken)
    {
        var word = Text.RandomId();
        return database.Settings.Where(row => row.Name == Setting).ExecuteUpdateAsync(update => update.SetProperty(row => row.Value, word), cancellationToken);
    }

    public static string Sqlite()
    {
        const string Word = "lower(hex(randomblob(8)))";
        var names = string.Join(", ", Settings.Select(name => $"'{name}'"));
        var triggers = Tables.SelectMany(table => Events.Select(happens => (table, happens, Condition: "")))
            .Concat(Events.Select(happens => (table: "Settings", happens, Condition: $"WHEN {(happens == "DELETE" ? "OLD" : "NEW")}.Name IN ({names}) ")))
            .Select(one => $"CREATE TRIGGER IF NOT EXISTS \"Revision{one.table}{one.happens}\" AFTER {one.happens} ON \"{one.table}\" {one.Condition}BEGIN UPDATE Settings SET Value = {Word} WHERE Name = '{Setting}'; END;");
        return $"INSERT OR IGNORE INTO Settings (Name, Value) VALUES ('{Setting}', {Word});\n{string.Join('\n', triggers)}";
    }

    public static string Postgres()
    {
        const string Word = "gen_random_uuid()::text";
        var names = string.Join(", ", Settings.Select(name => $"'{name}'"));
        string Trigger(string table, string name, string clause) =>
            $"IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgname = '{name}' AND tgrelid = '\"{table}\"'::regclass) THEN CREATE TRIGGER \"{name}\" {clause} EXECUTE FUNCTION \"ChangeRevision\"(); END IF;";
        var triggers = Tables.Select(table => Trigger(table, "Revision" + table, $"AFTER INSERT OR UPDATE OR DELETE ON \"{table}\" FOR EACH STATEMENT"))
            .Append(Trigger("Settings", "RevisionSettings", $"AFTER INSERT OR UPDATE ON \"Settings\" FOR EACH ROW WHEN (NEW.\"Name\" IN ({names}))"))
            .Append(Trigger("Settings", "RevisionSettingsGone", $"AFTER DELETE ON \"Settings\" FOR EACH ROW WHEN (OLD.\"Name\" IN ({names}))"));
        return $"""
            INSERT INTO "Settings" ("Name", "Value") VALUES ('{Setting}', {Word}) ON CONFLICT DO NOTHING;
            CREATE OR REPLACE FUNCTION "ChangeRevision"() RETURNS trigger LANGUAGE plpgsql AS $body$
            BEGIN UPDATE "Settings" SET "Value" = {Word} WHERE "Name" = '{Setting}'; RETURN NULL; END $body$;
            DO $body$ BEGIN
            {string.Join('\n', triggers)}
            END $body$;
            """;
    }
}
