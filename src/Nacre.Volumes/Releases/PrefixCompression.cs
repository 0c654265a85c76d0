using ZstdSharp;
using ZstdSharp.Unsafe;

namespace Nacre.Volumes.Releases;

/// <summary>zstd frames that continue a prefix: what the new content shares with the old costs next to nothing.</summary>
internal static unsafe class PrefixCompression
{
    /// <summary>2^27 bytes: prefix and content together never have more.</summary>
    private const int WindowLog = 27;

    /// <summary>Compresses <paramref name="content"/>; null where the frame would be longer than <paramref name="destination"/>.</summary>
    public static int? Compress(ReadOnlySpan<byte> prefix, ReadOnlySpan<byte> content, int level, Span<byte> destination)
    {
        var context = Methods.ZSTD_createCCtx();
        try
        {
            Set(context, ZSTD_cParameter.ZSTD_c_compressionLevel, level);
            Set(context, ZSTD_cParameter.ZSTD_c_windowLog, WindowLog);
            Set(context, ZSTD_cParameter.ZSTD_c_enableLongDistanceMatching, 1);
            Set(context, ZSTD_cParameter.ZSTD_c_ldmMinMatch, 32);
            Set(context, ZSTD_cParameter.ZSTD_c_ldmHashLog, 22);
            Set(context, ZSTD_cParameter.ZSTD_c_ldmHashRateLog, 4);
            fixed (byte* from = prefix, source = content, target = destination)
            {
                Check(Methods.ZSTD_CCtx_refPrefix(context, from, (nuint)prefix.Length));
                var length = Methods.ZSTD_compress2(context, target, (nuint)destination.Length, source, (nuint)content.Length);
                return Methods.ZSTD_isError(length) ? null : (int)length;
            }
        }
        finally
        {
            Methods.ZSTD_freeCCtx(context);
        }
    }

    /// <summary>Puts content together again: exactly <paramref name="destination"/>'s length of it, and no more memory than that, whatever the frame says.</summary>
    /// <returns>False where the frame is none, or of another length.</returns>
    public static bool TryDecompress(ReadOnlySpan<byte> prefix, ReadOnlySpan<byte> untrustedFrame, Span<byte> destination)
    {
        var context = Methods.ZSTD_createDCtx();
        try
        {
            fixed (byte* from = prefix, source = untrustedFrame, target = destination)
            {
                Check(Methods.ZSTD_DCtx_refPrefix(context, from, (nuint)prefix.Length));
                var length = Methods.ZSTD_decompressDCtx(context, target, (nuint)destination.Length, source, (nuint)untrustedFrame.Length);
                return !Methods.ZSTD_isError(length) && (int)length == destination.Length;
            }
        }
        finally
        {
            Methods.ZSTD_freeDCtx(context);
        }
    }

    private static void Set(ZSTD_CCtx_s* context, ZSTD_cParameter parameter, int value) => Check(Methods.ZSTD_CCtx_setParameter(context, parameter, value));

    private static void Check(nuint result)
    {
        if (Methods.ZSTD_isError(result))
        {
            throw new ZstdException(ZSTD_ErrorCode.ZSTD_error_GENERIC, Methods.ZSTD_getErrorName(result));
        }
    }
}
