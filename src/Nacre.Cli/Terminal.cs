using System.CommandLine;
using System.CommandLine.Parsing;
using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;
using Nacre.Contracts;
using Spectre.Console;

namespace Nacre.Cli;

/// <summary>How the command line speaks: results on standard output, everything else on standard error; errors in two lines, or as JSON.</summary>
internal static class Terminal
{
    /// <summary>For scripts: results and errors as JSON, no progress.</summary>
    public static Option<bool> Json { get; } = new("--json") { Description = "Print results and errors as JSON", Recursive = true };

    private static readonly IAnsiConsole Errors = AnsiConsole.Create(new AnsiConsoleSettings { Out = new AnsiConsoleOutput(Console.Error) });
    private static readonly JsonSerializerOptions Indented = new(ContractJson.Options) { WriteIndented = true };
    private static bool json;

    /// <summary>Parses and runs a command line; every error becomes words, a hint and an exit code.</summary>
    public static async Task<int> RunAsync(RootCommand root, string[] arguments, Func<CancellationToken, Task> before)
    {
        var parsed = root.Parse(arguments);
        json = parsed.GetValue(Json);
        Passwords.Use(parsed);
        if (parsed.Errors.Count > 0)
        {
            foreach (var error in parsed.Errors)
            {
                Fail(new NacreException(ErrorCatalogue.UsageInvalid, Lower(error.Message)), $"see 'nacre {CommandPath(parsed)}--help'");
            }

            return (int)ExitCode.Usage;
        }

        // Before the command begins: one that says that it is ready can be ended at once. The second signal ends one that does not end.
        using var interrupted = new CancellationTokenSource();
        using var interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, End);
        using var termination = PosixSignalRegistration.Create(PosixSignal.SIGTERM, End);
        try
        {
            await before(interrupted.Token);
            return await parsed.InvokeAsync(new InvocationConfiguration { EnableDefaultExceptionHandler = false, ProcessTerminationTimeout = null }, interrupted.Token);
        }
        catch (NacreException exception)
        {
            return Fail(exception);
        }
        catch (OperationCanceledException)
        {
            return Fail(new NacreException(ErrorCatalogue.Cancelled, "interrupted"));
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            var full = (exception.HResult & 0xFFFF) is 28 or 122;
            return Fail(new NacreException(full ? ErrorCatalogue.NoSpace : ErrorCatalogue.FileAccess, Lower(exception.Message.TrimEnd('.')), exception));
        }
        catch (Exception exception)
        {
            await Console.Error.WriteLineAsync(exception.ToString());
            return Fail(new NacreException(ErrorCatalogue.Internal, exception.Message, exception));
        }

        void End(PosixSignalContext context)
        {
            context.Cancel = !interrupted.IsCancellationRequested;
            _ = interrupted.CancelAsync();
        }
    }

    /// <summary>A text that somebody else chose, such as a file's name: what a terminal would obey is shown as <c>\x1b</c>.</summary>
    public static string Printable(string untrusted) =>
        string.Concat(untrusted.Select(character => char.IsControl(character) ? $"\\x{(int)character:x2}" : $"{character}"));

    /// <summary>Whether a script reads what is printed.</summary>
    public static bool IsJson => json;

    /// <summary>A result: JSON where it was asked for, else the words.</summary>
    public static void Result<T>(T value, Action words)
    {
        if (json)
        {
            Console.Out.WriteLine(JsonSerializer.Serialize(value, Indented));
        }
        else
        {
            words();
        }
    }

    /// <summary>A line of a result.</summary>
    public static void Line(string text) => Console.Out.WriteLine(text);

    /// <summary>A line for the person, not part of the result.</summary>
    public static void Note(string text)
    {
        if (!json)
        {
            Console.Error.WriteLine(text);
        }
    }

    /// <summary>A secret from the person, not shown as it is typed; a line of standard input where that is no terminal.</summary>
    public static string Secret(string prompt)
    {
        if (Console.IsInputRedirected)
        {
            return Console.In.ReadLine() ?? throw new NacreException(ErrorCatalogue.UsageInvalid, $"standard input ended before the {prompt}");
        }

        Console.Error.Write($"{prompt}: ");
        var typed = new StringBuilder();
        while (Console.ReadKey(intercept: true) is { Key: not ConsoleKey.Enter } key)
        {
            if (key.Key == ConsoleKey.Backspace)
            {
                typed.Length = Math.Max(0, typed.Length - 1);
            }
            else if (!char.IsControl(key.KeyChar))
            {
                typed.Append(key.KeyChar);
            }
        }

        Console.Error.WriteLine();
        return typed.ToString();
    }

    /// <summary>A table of results.</summary>
    public static void Table(string[] columns, IEnumerable<string[]> rows)
    {
        var lines = rows.Prepend(columns).ToArray();
        var widths = columns.Select((_, column) => lines.Max(line => line[column].Length)).ToArray();
        foreach (var line in lines)
        {
            Line(string.Join("  ", line.Select((cell, column) => cell.PadRight(widths[column]))).TrimEnd());
        }
    }

    /// <summary>Runs something long with a progress bar (a terminal) or a line every few seconds (a pipe).</summary>
    /// <param name="title">What is being done.</param>
    /// <param name="work">Reports a fraction from 0 to 1 (NaN: unknown) and words.</param>
    public static async Task<T> ProgressAsync<T>(string title, Func<Action<double, string>, Task<T>> work)
    {
        if (json)
        {
            return await work((_, _) => { });
        }

        if (!Errors.Profile.Capabilities.Interactive || Console.IsErrorRedirected)
        {
            var last = Stopwatch.StartNew();
            var said = "";
            Note(title);
            return await work((fraction, words) =>
            {
                if (words != said && last.Elapsed > TimeSpan.FromSeconds(2))
                {
                    said = words;
                    last.Restart();
                    Note(double.IsNaN(fraction) ? $"  {words}" : string.Create(CultureInfo.InvariantCulture, $"  {fraction:P0}  {words}"));
                }
            });
        }

        return await Errors.Progress().AutoClear(false).Columns(new TaskDescriptionColumn { Alignment = Justify.Left }, new ProgressBarColumn(), new PercentageColumn(), new ElapsedTimeColumn(), new SpinnerColumn())
            .StartAsync(async context =>
            {
                var task = context.AddTask(Markup.Escape(title), maxValue: 1);
                var result = await work((fraction, words) =>
                {
                    task.IsIndeterminate = double.IsNaN(fraction);
                    if (!double.IsNaN(fraction))
                    {
                        task.Value = fraction;
                    }

                    task.Description = Markup.Escape(words.Length == 0 ? title : $"{title}: {words}");
                });
                task.IsIndeterminate = false;
                task.Value = 1;
                return result;
            });
    }

    /// <summary>Bytes for people.</summary>
    public static string Bytes(long count) => count switch
    {
        < 1000 => $"{count} B",
        < 1_000_000 => string.Create(CultureInfo.InvariantCulture, $"{count / 1e3:0.0} kB"),
        < 1_000_000_000 => string.Create(CultureInfo.InvariantCulture, $"{count / 1e6:0.0} MB"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{count / 1e9:0.00} GB"),
    };

    private static int Fail(NacreException exception, string? hint = null)
    {
        hint ??= exception.Kind.Hint;
        if (json)
        {
            Console.Error.WriteLine(JsonSerializer.Serialize(new { code = exception.Kind.Code, message = exception.Message, hint }, ContractJson.Options));
        }
        else
        {
            Console.Error.WriteLine($"nacre: error: {exception.Message}");
            Console.Error.WriteLine($"nacre: hint: {hint}");
        }

        return (int)exception.Kind.ExitCode;
    }

    private static string CommandPath(ParseResult parsed)
    {
        var words = new Stack<string>();
        for (SymbolResult? result = parsed.CommandResult; result is CommandResult command && command.Command is not RootCommand; result = result.Parent)
        {
            words.Push(command.Command.Name);
        }

        return string.Concat(words.Select(word => word + " "));
    }

    private static string Lower(string text) => text.Length > 1 && char.IsUpper(text[0]) && char.IsLower(text[1]) ? char.ToLowerInvariant(text[0]) + text[1..].TrimEnd('.') : text.TrimEnd('.');
}
