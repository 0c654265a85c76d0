namespace Nacre.Nbd;
