namespace Nacre.Contracts;

/// <summary>The organisation's recovery key; its private half never comes to the server.</summary>
/// <param name="Pem">The public key as PEM.</param>
public sealed record RecoveryKey(string Pem);

/// <summary>A device hands over a recovery code and its LivePC's key, which only the recovery key opens.</summary>
/// <param name="Number">The code's number, from 1; a higher one takes the place of a lower one.</param>
/// <param name="RecoveryKey">The name of the key that they are encrypted to: 64 hexadecimal digits.</param>
/// <param name="Keys">They, as compact JWE (ECDH-ES+A256KW, A256GCM).</param>
public sealed record PutEscrow(int Number, string RecoveryKey, string Keys);

/// <summary>That the organisation has a recovery code.</summary>
/// <param name="Device">The device.</param>
/// <param name="LivePc">The LivePC.</param>
/// <param name="Number">The code's number.</param>
/// <param name="RecoveryKey">The name of the key that opens it.</param>
/// <param name="At">When the device handed it over.</param>
/// <param name="ReleasedAt">When it was given out last; null: never.</param>
public sealed record EscrowEntry(string Device, string LivePc, int Number, string RecoveryKey, DateTimeOffset At, DateTimeOffset? ReleasedAt);

/// <summary>Asks for what a device has handed over.</summary>
/// <param name="Reason">Why, 1 to 200 printable characters: it is in the audit log.</param>
public sealed record ReleaseEscrow(string Reason);

/// <summary>What a device has handed over.</summary>
/// <param name="Entry">Of which.</param>
/// <param name="Keys">Compact JWE, for the recovery key.</param>
public sealed record ReleasedEscrow(EscrowEntry Entry, string Keys);
