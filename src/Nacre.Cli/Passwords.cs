using System.CommandLine;
using System.Security.Cryptography;
using System.Text;
using Nacre.Contracts;
using Nacre.Player.Keys;

namespace Nacre.Cli;

/// <summary>Where this command's passwords come from: files that were named, <c>NACRE_PASSWORD</c> (the current and the new one), else whoever sits before the terminal.</summary>
internal sealed class Passwords : IPasswordSource
{
    private const string Variable = "NACRE_PASSWORD";
    private bool isCurrentGiven, isNewGiven;
    private SecretBytes? typed;
    private static string? file, newFile;

    /// <summary>The password of the LivePC.</summary>
    public static Option<string?> File { get; } = new("--password-file") { Description = "A file with the LivePC's password (default: NACRE_PASSWORD, else it is asked for)", Recursive = true };

    /// <summary>A password that is to hold from now on.</summary>
    public static Option<string?> NewFile { get; } = new("--new-password-file") { Description = "A file with the password to choose, where one has to be chosen", Recursive = true };

    /// <summary>Takes what the command line says.</summary>
    public static void Use(ParseResult parsed) => (file, newFile) = (parsed.GetValue(File), parsed.GetValue(NewFile));

    /// <inheritdoc/>
    public SecretBytes? Current(string livePc, string? problem)
    {
        // A command that opens the LivePC twice is given what opened it the first time.
        isCurrentGiven &= problem is not null;
        if (Given(file, ref isCurrentGiven, out var given))
        {
            return given;
        }

        if (problem is null && typed is not null)
        {
            return typed.Copy();
        }

        if (!IsAsked)
        {
            return null;
        }

        Say(problem);
        typed?.Dispose();
        typed = Ask($"Password of {livePc}: ");
        return typed.Copy();
    }

    /// <inheritdoc/>
    public SecretBytes? Choose(string livePc, string? problem)
    {
        if (Given(newFile, ref isNewGiven, out var given))
        {
            return given;
        }

        while (IsAsked)
        {
            Say(problem);
            var first = Ask($"New password of {livePc}: ");
            using var second = first.Length == 0 ? null : Ask("Again: ");
            if (second is null)
            {
                first.Dispose();
                return null;
            }

            if (CryptographicOperations.FixedTimeEquals(first.Span, second.Span))
            {
                typed?.Dispose();
                typed = first.Copy();
                return first;
            }

            first.Dispose();
            problem = "the two were not the same";
        }

        return null;
    }

    /// <summary>Whether somebody sits before a terminal and can be asked.</summary>
    public static bool IsAsked => !Console.IsInputRedirected && !Console.IsErrorRedirected && !Terminal.IsJson;

    private static void Say(string? problem)
    {
        if (problem is not null)
        {
            Terminal.Note(problem);
        }
    }

    /// <summary>What a script gave, once: where it is wrong, it would be so again.</summary>
    private static bool Given(string? path, ref bool isGiven, out SecretBytes? given)
    {
        given = null;
        var text = path is not null ? null : Environment.GetEnvironmentVariable(Variable);
        if (path is null && string.IsNullOrEmpty(text))
        {
            return false;
        }

        if (isGiven)
        {
            return true;
        }

        isGiven = true;
        given = path is not null ? Read(path) : SecretBytes.Take(Encoding.UTF8.GetBytes(text!.Normalize()));
        return true;
    }

    private static SecretBytes Read(string path)
    {
        byte[] content;
        try
        {
            content = System.IO.File.ReadAllBytes(path);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new NacreException(ErrorCatalogue.FileAccess, $"'{path}': {exception.Message}", exception);
        }

        var line = content.AsSpan();
        var end = line.IndexOfAny((byte)'\n', (byte)'\r');
        line = end < 0 ? line : line[..end];
        if (line.Length is 0 or > ushort.MaxValue)
        {
            throw new NacreException(ErrorCatalogue.UsageInvalid, $"'{path}' has no password in its first line");
        }

        var taken = SecretBytes.Take(line);
        CryptographicOperations.ZeroMemory(content);
        return taken;
    }

    /// <summary>Reads a line that is not shown.</summary>
    private static SecretBytes Ask(string question)
    {
        Console.Error.Write(question);
        var typed = new List<char>();
        while (Console.ReadKey(intercept: true) is { Key: not ConsoleKey.Enter } key)
        {
            if (key.Key == ConsoleKey.Backspace)
            {
                if (typed.Count > 0)
                {
                    typed.RemoveAt(typed.Count - 1);
                }
            }
            else if (!char.IsControl(key.KeyChar))
            {
                typed.Add(key.KeyChar);
            }
        }

        Console.Error.WriteLine();
        return SecretBytes.Take(Encoding.UTF8.GetBytes(new string([.. typed]).Normalize()));
    }
}
