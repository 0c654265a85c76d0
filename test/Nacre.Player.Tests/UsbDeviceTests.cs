using Nacre.Player.HostChecks;
using Nacre.Player.Usb;
using Nacre.Policies;
using Nacre.Testing;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>Which USB devices of a host a policy lets a guest have, by what their descriptors say.</summary>
public sealed class UsbDeviceTests : IDisposable
{
    private readonly TemporaryDirectory folder = new();

    public UsbDeviceTests()
    {
        Device("usb1", "1d6b:0002", "09", "09");
        Device("1-1", "046d:c52b", "00", "03", "03");
        Device("1-2", "0951:1666", "00", "08");
        Device("1-3", "0951:0bad", "00", "08", "03");
        Device("1-4", "046d:0825", "ef", "0e", "01");
        Device("1-5", "0b05:1234", "00", "01");
        Device("1-6", "ffff:0001", "00", "ff");
        Device("1-7", "ffff:0002", "00");
        Device("1-8", "04f9:0001", "07", "08");
        File.WriteAllText(folder["sys/bus/usb/devices/1-2/product"], "Stick\u001b[31m\n");
    }

    public void Dispose() => folder.Dispose();

    [Theory]
    [InlineData("{}", "")]
    [InlineData("""{"usb.classes":["hid","storage"],"usb.vidPidAllow":["046d:c52b"],"camera":true,"microphone":true}""", "")]
    [InlineData("""{"usb.mode":"allow-list"}""", "")]
    [InlineData("""{"usb.mode":"allow-list","usb.classes":["storage"]}""", "1-2")]
    [InlineData("""{"usb.mode":"allow-list","usb.classes":["storage","hid"]}""", "1-1 1-2 1-3")]
    [InlineData("""{"usb.mode":"allow-list","usb.classes":["storage","printer"]}""", "1-2 1-8")]
    [InlineData("""{"usb.mode":"allow-list","usb.vidPidAllow":["0951:0bad"]}""", "1-3")]
    [InlineData("""{"usb.mode":"allow-list","usb.classes":["video","audio"]}""", "")]
    [InlineData("""{"usb.mode":"allow-list","usb.classes":["video","audio"],"camera":true}""", "")]
    [InlineData("""{"usb.mode":"allow-list","usb.classes":["video","audio"],"microphone":true}""", "1-5")]
    [InlineData("""{"usb.mode":"allow-list","usb.classes":["video","audio"],"camera":true,"microphone":true}""", "1-4 1-5")]
    [InlineData("""{"usb.mode":"allow-list","usb.vidPidAllow":["046d:0825"]}""", "")]
    [InlineData("""{"usb.mode":"allow"}""", "1-1 1-2 1-3 1-6 1-8")]
    [InlineData("""{"usb.mode":"allow","camera":true,"microphone":true}""", "1-1 1-2 1-3 1-4 1-5 1-6 1-8")]
    public void A_guest_may_have_what_the_policy_lists_and_nothing_else(string policy, string allowed) =>
        Assert.Equal(allowed, string.Join(' ', List().Where(device => device.WhyNot(Policy.Of("lease", PolicyDocument.Parse(policy))) is null).Select(device => device.Id)));

    [Fact]
    public void A_device_is_what_its_descriptors_say_and_QEMU_is_told_where_it_is()
    {
        var stick = List().Single(device => device.Id == "1-2");
        Assert.Equal(("0951:1666", "Stick[31m", """{"driver":"usb-host","hostdevice":"/dev/bus/usb/001/012"}"""), (stick.VidPid, stick.Name, stick.Driver.ToJsonString()));
        Assert.Equal(["hid", "storage"], List().Single(device => device.Id == "1-3").Kinds);
        File.WriteAllText(folder["sys/bus/usb/devices/1-2/idVendor"], "0951,bus=x");
        File.WriteAllText(folder["sys/bus/usb/devices/1-1/devnum"], "-4");
        Assert.DoesNotContain(List(), device => device.Id is "1-1" or "1-2");
    }

    private IReadOnlyList<UsbDevice> List() => UsbDevice.List(new HostFacts(folder.Path, new Dictionary<string, string>()));

    private void Device(string name, string vidPid, string kind, params string[] interfaces)
    {
        var place = folder[$"sys/bus/usb/devices/{name}"];
        Directory.CreateDirectory(place);
        var number = name.StartsWith("usb", StringComparison.Ordinal) ? "1" : $"1{name[^1]}";
        foreach (var (file, text) in new[] { ("idVendor", vidPid[..4]), ("idProduct", vidPid[5..]), ("bDeviceClass", kind), ("busnum", "1"), ("devnum", number) })
        {
            File.WriteAllText(Path.Combine(place, file), text + "\n");
        }

        foreach (var (i, one) in interfaces.Index())
        {
            Directory.CreateDirectory(Path.Combine(place, $"{name}:1.{i}"));
            File.WriteAllText(Path.Combine(place, $"{name}:1.{i}", "bInterfaceClass"), one + "\n");
        }
    }
}
