namespace Nacre.Contracts;
