using System.Diagnostics;
using System.Text;
using CsCheck;
using Nacre.Policies;
using Nacre.Testing;
using Xunit;

namespace Nacre.Images.Tests.Guest;

/// <summary>The layering rules in C#, and that the guest's initramfs and its programs read, judge and evaluate them the same.</summary>
public sealed class LayeringRulesTests : IDisposable
{
    private static readonly Gen<string> Name = Gen.Frequency(
        (6, One("home", "etc", "opt", "usr", "local", "var", "lib", "dpkg", "apt", "alice", "bob", ".config", ".cache", "a", "ab", "abc", "x.y")),
        (3, One("*", "a*", "*b", "*.*", ".*", "a*c", "**")),
        (1, One(".", "..", "", "?", "[a]", "a\\b", "ä", "'", "$x", "{a,b}", "tmp", "-")));

    private static readonly Gen<string> Pattern = Gen.Select(Name.Array[0, 4], Gen.Frequency((9, Gen.Const("/")), (1, Gen.Const(""))), Gen.Frequency((5, Gen.Const("")), (1, Gen.Const("/"))))
        .Select((names, start, end) => start + string.Join('/', names) + end);

    private static readonly Gen<string> Line = Gen.Select(
        Pattern, Gen.Frequency((8, One("scratch", "applications", "settings", "data")), (1, One("Data", "system", ""))), One("", "", "", "", " ", " more"), One("", "", " ", "#"))
        .Select((pattern, layer, rest, start) => $"{start}{pattern} {layer}{rest}");

    private static readonly Gen<string> Path = Gen.Frequency(
            (6, One("home", "etc", "opt", "usr", "local", "var", "lib", "alice", "bob", ".config", ".cache", "a", "ab", "abc", "x.y")),
            (2, One("ä", "*", "a b", "a\\b", "[a]", "$x", "..c", "-")))
        .Array[1, 5].Select(names => "/" + string.Join('/', names));

    private readonly TemporaryDirectory folder = new();

    public void Dispose() => folder.Dispose();

    [Fact]
    public void The_last_rule_that_covers_a_path_decides()
    {
        var rules = LayeringRules.Parse(["# ours", "/ scratch", "/home data", "/home/*/.config settings"], ["/home/alice/.config/big data", "not a rule", "/opt/ applications"]);
        Assert.Equal(new LayeringRule("/home/*/.config", Layer.Settings, "factory", 4), rules.RuleOf("/home/alice/.config/x/y"));
        Assert.Equal(new LayeringRule("/home/alice/.config/big", Layer.Data, "administrator", 1), rules.RuleOf("/home/alice/.config/big/y"));
        Assert.Equal(Layer.Settings, rules.RuleOf("/home/alice/.config/bigger").Layer);
        Assert.Equal(Layer.Data, rules.RuleOf("/home/.config").Layer);
        Assert.Equal(new LayeringRule("/opt", Layer.Applications, "administrator", 3), rules.RuleOf("/opt"));
        Assert.Equal(LayeringRule.Default, LayeringRules.Parse([], []).RuleOf("/x"));
    }

    [Theory]
    [InlineData("/srv attic", "none of")]
    [InlineData("/srv", "none of")]
    [InlineData("srv data", "begin with")]
    [InlineData("/srv/../etc data", "plain")]
    [InlineData("/srv//a data", "plain")]
    [InlineData("/srv/[ab] data", "character")]
    [InlineData("/srv data and more", "more than")]
    [InlineData("/* data", "first name")]
    [InlineData("/home/alice data", "a home is not split")]
    [InlineData("/ data", "nothing there")]
    [InlineData("/proc/sys data", "nothing there")]
    [InlineData("/usr data", "/usr/local")]
    [InlineData("/usr/* data", "/usr/local")]
    [InlineData("/var data", "package database")]
    [InlineData("/var/lib/* data", "package database")]
    [InlineData("/var/*/dpkg/info data", "package database")]
    [InlineData("/srv\u0007 data", "control")]
    public void A_line_that_is_no_rule_is_refused_with_the_reason(string line, string reason)
    {
        Assert.Contains(reason, LayeringRules.Judge(line), StringComparison.Ordinal);
        Assert.Empty(LayeringRules.Parse([], [line]).Rules);
        Assert.Throws<PolicyException>(() => LayeringRules.Parse([line], []));
    }

    [Fact]
    public void A_pattern_of_many_asterisks_takes_no_time()
    {
        var rules = LayeringRules.Parse([], [$"/srv/{string.Concat(Enumerable.Repeat("*a", 90))} data"]);
        var time = Stopwatch.StartNew();
        Assert.Equal(Layer.Scratch, rules.RuleOf("/srv/" + new string('a', 80) + new string('b', 200_000)).Layer);
        Assert.InRange(time.Elapsed.TotalSeconds, 0, 2);
    }

    [Fact]
    public void The_factorys_rules_are_rules()
    {
        var rules = LayeringRules.Parse(File.ReadAllLines(Repository.At("guest", "layers")), []);
        Assert.Equal(Layer.Settings, rules.RuleOf("/etc/issue").Layer);
        Assert.All(["/usr/bin/x", "/etc/cron.d/x", "/etc/ld.so.preload", "/etc/crontab", "/root/.bashrc", "/var/spool/cron/x", "/home/x/.cache/y", "/etc/machine-id"],
            path => Assert.Equal(Layer.Scratch, rules.RuleOf(path).Layer));
    }

    [Fact]
    public void Both_shells_and_perl_agree_with_this_about_any_rules_and_paths()
    {
        var seed = Environment.GetEnvironmentVariable("NACRE_CSCHECK_SEED");
        var cases = new List<(string[] Lines, string[] Paths)>();
        Gen.Select(Line.Array[0, 8], Path.Array[4]).Sample(cases.Add, iter: 400, seed: seed, threads: 1);
        var sound = cases.Sum(one => LayeringRules.Parse([], one.Lines).Rules.Count());
        Assert.True(cases.Count >= 300 && sound > 100, $"{cases.Count} cases, in them {sound} rules");
        for (var number = 0; number < cases.Count; number++)
        {
            File.WriteAllText(folder[$"{number}.lines"], string.Concat(cases[number].Lines.Select(line => line + "\n")));
            File.WriteAllText(folder[$"{number}.paths"], string.Concat(cases[number].Paths.Select(path => path + "\n")));
        }

        foreach (var layer in new[] { "scratch", "applications", "settings", "data" })
        {
            Directory.CreateDirectory(folder[$"volumes/{layer}"]);
        }

        File.WriteAllText(folder["evaluate"], $$"""
            nacre_fail() { echo "$*" >&2; exit 9; }
            . {{Repository.At("guest", "initramfs", "scripts", "nacre")}}
            nacre_say() { echo "${*##*is left out: }" >>"$case.said"; }
            volumes={{folder["volumes"]}}
            number=0
            while [ -e "{{folder.Path}}/$number.lines" ]; do
                case="{{folder.Path}}/$number"
                rules="$case.rules"
                : >"$rules"; : >"$case.said"; : >"$case.layers"; rule_words=
                nacre_add_rules administrator <"$case.lines"
                while IFS= read -r path; do
                    nacre_layer_of "$path"
                    echo "$answer"
                done <"$case.paths" >"$case.layers"
                number=$((number + 1))
            done
            """);
        foreach (var shell in new[] { new[] { Require.Tool("busybox"), "sh" }, [Require.Tool("dash")] })
        {
            Run([.. shell, folder["evaluate"]]);
            for (var number = 0; number < cases.Count; number++)
            {
                Check(number, cases[number], string.Join(' ', shell));
            }
        }

        // Perl reads the rules that the shell wrote.
        File.WriteAllText(folder["evaluate.pl"], $$"""
            use lib '{{Repository.At("guest", "files", "usr", "lib", "nacre", "perl")}}';
            use Nacre::Layers;
            for my $number (0 .. {{cases.Count - 1}}) {
                my $rules = read_rules("{{folder.Path}}/$number.rules");
                open my $out, '>', "{{folder.Path}}/$number.layers";
                print $out layer_of($rules, $_), "\n" for split /\n/, read_file("{{folder.Path}}/$number.paths");
            }
            """);
        Run("perl", folder["evaluate.pl"]);
        for (var number = 0; number < cases.Count; number++)
        {
            Check(number, cases[number], "perl");
        }
    }

    private void Check(int number, (string[] Lines, string[] Paths) one, string who)
    {
        var rules = LayeringRules.Parse([], one.Lines);
        var about = $"{who}, case {number}: {File.ReadAllText(folder[$"{number}.lines"])}{string.Join('\n', one.Paths)}\n";
        Assert.Equal(about + string.Join('\n', rules.Rules.Select(rule => $"{rule.Pattern} {Lower(rule.Layer)} administrator:{rule.Line}")), about + File.ReadAllText(folder[$"{number}.rules"]).TrimEnd('\n'));
        Assert.Equal(about + string.Join('\n', one.Lines.Select(LayeringRules.Judge).OfType<string>()), about + File.ReadAllText(folder[$"{number}.said"]).TrimEnd('\n'));
        Assert.Equal(about + string.Join('\n', one.Paths.Select(path => Lower(rules.RuleOf(path).Layer))), about + File.ReadAllText(folder[$"{number}.layers"]).TrimEnd('\n'));
    }

    private static Gen<string> One(params string[] all) => Gen.Int[0, all.Length - 1].Select(index => all[index]);

    private static string Lower(Layer layer) => layer.ToString().ToLowerInvariant();

    private static void Run(params string[] words)
    {
        using var process = Process.Start(new ProcessStartInfo(words[0], words[1..]) { RedirectStandardError = true, StandardErrorEncoding = Encoding.UTF8, Environment = { ["LC_ALL"] = "C" } })!;
        var errors = process.StandardError.ReadToEnd();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0 && errors.Length == 0, $"{words[0]} ended with {process.ExitCode}: {errors}");
    }
}
