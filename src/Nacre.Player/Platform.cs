// Linux hosts only, so far: memfd, unix sockets with permissions, /proc.
[assembly: System.Runtime.Versioning.SupportedOSPlatform("linux")]
