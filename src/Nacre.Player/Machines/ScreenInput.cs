using System.Buffers.Binary;

namespace Nacre.Player.Machines;

/// <summary>Tells in what a viewer sends to QEMU whether somebody types or points: RFB's client messages (RFC 6143 section 7.5; QEMU's own as docs/interop says). What it can't follow
/// counts as somebody.</summary>
internal sealed class ScreenInput
{
    private enum Step
    {
        Version, Security, Init, Message, Lost,
    }

    /// <summary>Enough for the head of any message.</summary>
    private readonly byte[] head = new byte[12];
    private Step step = Step.Version;
    private int have; // bytes of the head
    private long skip; // bytes of the rest of a message

    /// <summary>Takes what a viewer sent.</summary>
    /// <returns>Whether there was a key, a movement or a click in it, or something that can't be followed.</returns>
    public bool Take(ReadOnlySpan<byte> sent)
    {
        var isSomebody = false;
        while (sent.Length > 0 && step != Step.Lost)
        {
            if (skip > 0)
            {
                var part = (int)Math.Min(skip, sent.Length);
                skip -= part;
                sent = sent[part..];
                continue;
            }

            head[have++] = sent[0];
            sent = sent[1..];
            isSomebody |= Advance();
        }

        return isSomebody || step == Step.Lost;
    }

    /// <summary>Looks at the head, which has grown by a byte.</summary>
    private bool Advance()
    {
        switch (step)
        {
            case Step.Version when have == 12:
                var isOld = head.AsSpan(0, 11).SequenceEqual("RFB 003.003"u8);
                Next(!head.AsSpan(0, 4).SequenceEqual("RFB "u8) ? Step.Lost : isOld ? Step.Init : Step.Security);
                return false;
            case Step.Security:
                Next(head[0] == 1 ? Step.Init : Step.Lost); // 1: none
                return false;
            case Step.Init:
                Next(Step.Message);
                return false;
            case Step.Message:
                return AdvanceMessage();
            default:
                return false;
        }
    }

    private bool AdvanceMessage()
    {
        var (length, rest) = (head[0], have) switch
        {
            (0, _) => (1, 19L), // pixel format
            (2, >= 4) => (4, 4L * BinaryPrimitives.ReadUInt16BigEndian(head.AsSpan(2))), // encodings
            (2, _) => (4, 0),
            (3, _) => (1, 9), // asks for the screen
            (4, _) => (1, 7), // key
            (5, _) => (1, 5), // pointer
            (6, >= 8) => (8, Math.Abs((long)BinaryPrimitives.ReadInt32BigEndian(head.AsSpan(4)))), // text to paste
            (6, _) => (8, 0),
            (248, >= 9) => (9, head[8]), // fence
            (248, _) => (9, 0),
            (250, _) => (1, 3), // power
            (251, >= 8) => (8, 16L * head[6]), // size
            (251, _) => (8, 0),
            (255, >= 2) when head[1] == 0 => (2, 10), // key with its code
            (255, >= 4) when head[1] == 1 => (4, BinaryPrimitives.ReadUInt16BigEndian(head.AsSpan(2)) == 2 ? 6 : 0), // sound
            (255, >= 2) when head[1] != 1 => (0, 0),
            (255, _) => (4, 0),
            _ => (0, 0),
        };
        if (length == 0)
        {
            step = Step.Lost;
            return true;
        }

        if (have < length)
        {
            return false;
        }

        var isSomebody = head[0] is 4 or 5 or 6 or 250 || (head[0] == 255 && head[1] == 0);
        skip = rest;
        have = 0;
        return isSomebody;
    }

    private void Next(Step next) => (step, have) = (next, 0);
}
