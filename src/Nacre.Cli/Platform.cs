// As the player.
[assembly: System.Runtime.Versioning.SupportedOSPlatform("linux")]
