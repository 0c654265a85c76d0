using System.Diagnostics;
using System.Net.Mime;
using System.Text.Json;
using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>A failure as an HTTP answer.</summary>
internal sealed class ProblemResult(Failure failure) : IResult
{
    public Task ExecuteAsync(HttpContext httpContext) => Problems.WriteAsync(httpContext, failure);
}

/// <summary>The one place where failures become ProblemDetails.</summary>
internal static class Problems
{
    public const string ContentType = MediaTypeNames.Application.ProblemJson;

    public static string TraceId(HttpContext context) => Activity.Current?.TraceId.ToHexString() ?? context.TraceIdentifier;

    public static string Title(ErrorKind kind)
    {
        var words = kind.Code[2..].Replace('_', ' ').ToLowerInvariant();
        return char.ToUpperInvariant(words[0]) + words[1..];
    }

    public static async Task WriteAsync(HttpContext context, Failure failure, int? status = null)
    {
        await context.RequestServices.GetRequiredService<Refusals>().NoteAsync(context, failure);
        var response = context.Response;
        response.StatusCode = status ?? failure.Kind.HttpStatus;
        response.ContentType = ContentType;
        response.ContentLength = null;
        var problem = new Problem(
            "urn:nacre:error:" + failure.Kind.Code, Title(failure.Kind), response.StatusCode, failure.Detail, failure.Kind.Code, failure.Kind.Hint, TraceId(context));
        var body = JsonSerializer.SerializeToUtf8Bytes(problem, ContractJson.Options);
        response.ContentLength = body.Length;
        if (!HttpMethods.IsHead(context.Request.Method))
        {
            await response.Body.WriteAsync(body, context.RequestAborted);
        }
    }

    /// <summary>What an exception means to the caller: its kind where the cause is known, otherwise a defect, whose text stays here.</summary>
    public static Failure From(Exception exception) => exception switch
    {
        NacreException known => new Failure(known.Kind, known.Message),
        BadHttpRequestException { StatusCode: StatusCodes.Status413PayloadTooLarge } => new Failure(ErrorCatalogue.TooLarge, "the body is larger than this request may have"),
        BadHttpRequestException bad => new Failure(ErrorCatalogue.RequestInvalid, Describe(bad)),
        IOException full when IsDiskFull(full) => DiskFull,
        _ when DatabaseProblems.Find(exception) is { } failure => failure,
        _ => new Failure(ErrorCatalogue.Internal, "the server failed; its log has the reason under the trace id"),
    };

    public static bool IsDiskFull(IOException exception)
    {
        // .NET gives the errno on Unix, the Win32 error in an HRESULT on Windows.
        const int NoSpaceErrno = 28, QuotaErrno = 122, WindowsDiskFull = unchecked((int)0x80070070);
        return OperatingSystem.IsWindows() ? exception.HResult == WindowsDiskFull : exception.HResult is NoSpaceErrno or QuotaErrno;
    }

    private static Failure DiskFull { get; } = new(ErrorCatalogue.NoSpace, "the server's disk is full; nothing of this request was kept");

    private static string Describe(BadHttpRequestException bad) => bad.InnerException is JsonException json
        ? $"the body is not the JSON that is expected here: wrong at {(string.IsNullOrEmpty(json.Path) ? "$" : json.Path)}, line {(json.LineNumber ?? 0) + 1}"
        : "the request is not as the API describes: its body or a parameter is missing, malformed, cut off or of another content type";
}

/// <summary>Turns everything that escapes, and every bare status code, into a problem.</summary>
internal sealed class FailureMiddleware(RequestDelegate next, ILogger<FailureMiddleware> logger)
{
    public async Task InvokeAsync(HttpContext context)
    {
        context.Response.Headers.XContentTypeOptions = "nosniff";
        context.Response.OnStarting(static state =>
        {
            var response = (HttpResponse)state;
            if (response.Headers.CacheControl.Count == 0)
            {
                response.Headers.CacheControl = "no-store";
            }

            return Task.CompletedTask;
        }, context.Response);
        try
        {
            await next(context);
        }
        catch (OperationCanceledException) when (context.RequestAborted.IsCancellationRequested)
        {
            context.Response.StatusCode = StatusCodes.Status499ClientClosedRequest;
            return;
        }
#pragma warning disable CA1031 // The last resort: whatever it is, the caller gets a problem and the log the reason.
        catch (Exception exception)
#pragma warning restore CA1031
        {
            var failure = Problems.From(exception);
            if (failure.Kind == ErrorCatalogue.Internal)
            {
                logger.RequestFailed(context.Request.Method, context.Request.Path, Problems.TraceId(context), exception);
            }
            else if (failure.Kind == ErrorCatalogue.NoSpace)
            {
                logger.DiskFull(Problems.TraceId(context));
            }
            else if (failure.Kind == ErrorCatalogue.DatabaseUnreachable || failure.Kind == ErrorCatalogue.DatabaseRefused)
            {
                logger.DatabaseAway(failure.Detail, Problems.TraceId(context));
            }

            if (context.Response.HasStarted)
            {
                context.Abort();
                return;
            }

            context.Response.Clear();
            context.Response.Headers.XContentTypeOptions = "nosniff";
            var status = exception is BadHttpRequestException { StatusCode: StatusCodes.Status415UnsupportedMediaType } ? StatusCodes.Status415UnsupportedMediaType : (int?)null;
            await Problems.WriteAsync(context, failure, status);
            return;
        }

        if (!context.Response.HasStarted && context.Response is { StatusCode: >= 400, ContentType: null })
        {
            await Problems.WriteAsync(context, FromStatus(context), context.Response.StatusCode);
        }
    }

    private static Failure FromStatus(HttpContext context) => context.Response.StatusCode switch
    {
        StatusCodes.Status404NotFound => new Failure(ErrorCatalogue.NotFound, "there is nothing under this address"),
        StatusCodes.Status401Unauthorized => new Failure(ErrorCatalogue.Unauthenticated, "this needs a credential"),
        StatusCodes.Status403Forbidden => new Failure(ErrorCatalogue.Forbidden, "this credential does not permit that"),
        StatusCodes.Status413PayloadTooLarge => new Failure(ErrorCatalogue.TooLarge, "the body is larger than this request may have"),
        StatusCodes.Status405MethodNotAllowed => new Failure(ErrorCatalogue.RequestInvalid, $"{context.Request.Method} is not possible here"),
        < 500 => new Failure(ErrorCatalogue.RequestInvalid, "the request is not as the API describes"),
        _ => new Failure(ErrorCatalogue.Internal, "the server failed; its log has the reason under the trace id"),
    };
}
