namespace Nacre.Client;
