namespace Nacre.Images;
