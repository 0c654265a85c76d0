namespace Nacre.Player;
