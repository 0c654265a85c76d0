using System.CommandLine;
using System.Text;
using Nacre.Contracts;

namespace Nacre.Cli.Commands;

/// <summary><c>nacre livepc usb</c> and <c>nacre livepc clipboard</c>: what passes between this computer and a guest that runs.</summary>
internal static class DeviceAccessCommands
{
    private const int LongestText = 16 * 1024 * 1024;

    public static Command Usb()
    {
        var device = new Argument<string>("DEVICE") { Description = "As 'usb list' calls it, or its vendor and product (046d:c52b)" };
        var list = new Command("list", "List this computer's USB devices, and which of them the LivePC has or may have") { LivePcCommands.Name };
        list.SetAction(async (parsed, cancellationToken) =>
        {
            var devices = await LivePcCommands.Player().ListUsbAsync(parsed.GetValue(LivePcCommands.Name)!, cancellationToken);
            Terminal.Result(devices, () => Terminal.Table(["DEVICE", "ID", "NAME", "KINDS", "STATE"], devices.Select(one => new[]
            {
                one.Id, one.VidPid, one.Name, string.Join(", ", one.Kinds), one.IsAttached ? "attached" : one.Refused is { } reason ? $"not allowed: {reason}" : "can be attached",
            })));
        });
        var attach = new Command("attach", "Give a USB device to the LivePC, as far as your company allows it; this computer does not have it then") { LivePcCommands.Name, device };
        attach.SetAction(async (parsed, cancellationToken) =>
        {
            var attached = await LivePcCommands.Player().AttachUsbAsync(parsed.GetValue(LivePcCommands.Name)!, parsed.GetValue(device)!, cancellationToken);
            Terminal.Result(attached, () => Terminal.Line($"{parsed.GetValue(LivePcCommands.Name)} has {attached.VidPid} ({attached.Name})"));
        });
        var detach = new Command("detach", "Take a USB device back from the LivePC") { LivePcCommands.Name, device };
        detach.SetAction(async (parsed, cancellationToken) =>
        {
            await LivePcCommands.Player().DetachUsbAsync(parsed.GetValue(LivePcCommands.Name)!, parsed.GetValue(device)!, cancellationToken);
            Terminal.Note($"{parsed.GetValue(device)} is this computer's again");
        });
        return new Command("usb", "USB devices of this computer in a LivePC that runs") { list, attach, detach };
    }

    public static Command Clipboard()
    {
        var copy = new Command("copy", "Copy standard input to the clipboard of the LivePC, as far as your company allows it") { LivePcCommands.Name };
        copy.SetAction(async (parsed, cancellationToken) =>
        {
            using var input = new MemoryStream();
            var buffer = new byte[64 * 1024];
            await using var source = Console.OpenStandardInput();
            int count;
            while ((count = await source.ReadAsync(buffer, cancellationToken)) > 0)
            {
                input.Write(buffer, 0, count);
                if (input.Length > LongestText)
                {
                    throw new NacreException(ErrorCatalogue.TooLarge, "no company lets so much be copied at a time");
                }
            }

            string text;
            try
            {
                text = new UTF8Encoding(false, throwOnInvalidBytes: true).GetString(input.ToArray());
            }
            catch (ArgumentException exception)
            {
                throw new NacreException(ErrorCatalogue.UsageInvalid, "only text (UTF-8) can be copied", exception);
            }

            await LivePcCommands.Player().CopyAsync(parsed.GetValue(LivePcCommands.Name)!, text, cancellationToken);
        });
        var paste = new Command("paste", "Print what was copied in the LivePC, as far as your company allows it") { LivePcCommands.Name };
        paste.SetAction(async (parsed, cancellationToken) =>
        {
            var text = await LivePcCommands.Player().PasteAsync(parsed.GetValue(LivePcCommands.Name)!, cancellationToken);
            await using var output = Console.OpenStandardOutput();
            await output.WriteAsync(Encoding.UTF8.GetBytes(text), cancellationToken);
        });
        return new Command("clipboard", "The clipboard of a LivePC that runs") { copy, paste };
    }
}
