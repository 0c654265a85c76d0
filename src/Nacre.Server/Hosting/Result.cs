using Nacre.Contracts;

namespace Nacre.Server;

/// <summary>Why a use case refused: the kind from the catalogue and what happened, in words.</summary>
internal sealed record Failure(ErrorKind Kind, string Detail);

/// <summary>What a use case answers: a value or a failure. Exceptions mean a defect or an outage.</summary>
internal readonly struct Result<T>
    where T : notnull
{
    private readonly T value;

    private Result(T value, Failure? failure) => (this.value, Failure) = (value, failure);

    public Failure? Failure { get; }

    public T Value => Failure is null ? value : throw new InvalidOperationException("a failure has no value");

    public static implicit operator Result<T>(T value) => new(value, null);

    public static implicit operator Result<T>(Failure failure) => new(default!, failure);

    public IResult ToHttp(Func<T, IResult> success) => Failure is null ? success(value) : new ProblemResult(Failure);
}

/// <summary>What a use case answers that has nothing to say.</summary>
internal readonly record struct Done;

/// <summary>Something that was there or was made by this request.</summary>
internal sealed record Stored<T>(T Value, bool IsNew);
