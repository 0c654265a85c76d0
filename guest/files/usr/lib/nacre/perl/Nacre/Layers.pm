package Nacre::Layers;

# The layering rules, and trees that may have been tampered with: nothing here follows a symbolic link. Needs perl-base only.
use strict;
use warnings;
use Exporter 'import';
use Fcntl qw(:DEFAULT :mode);
use POSIX ();
use Nacre::Files qw(is_folder shown);

our @EXPORT = qw(read_rules layer_of rule_of has_rules_below entries is_same same_content make_folder read_file is_opaque);

# The rules as the initramfs wrote them: a list of [pattern, layer, where it stands].
sub read_rules
{
	my ($file) = @_;
	return [map { [split / /] } split /\n/, read_file($file) // die "$file cannot be read: $!\n"];
}

# How the names of a pattern and of a path fit: 'covers' (the pattern names the path or a folder above it), 'below' (it names something
# below the path), or nothing.
sub fit
{
	my ($pattern, $path) = @_;
	my @want = grep { $_ ne '' } split m{/}, $pattern;
	my @have = grep { $_ ne '' } split m{/}, $path;
	while (@want && @have) {
		my $want = join '.*', map { quotemeta } split /\*/, shift @want, -1;
		return '' unless shift(@have) =~ /\A$want\z/s;
	}
	return @want ? 'below' : 'covers';
}

# The last rule that covers $path; a rule of our own where none does.
sub rule_of
{
	my ($rules, $path) = @_;
	my ($last) = grep { fit($_->[0], $path) eq 'covers' } reverse @$rules;
	return $last // ['/', 'scratch', 'default'];
}

sub layer_of
{
	return rule_of(@_)->[1];
}

sub has_rules_below
{
	my ($rules, $path) = @_;
	return scalar grep { fit($_->[0], $path) eq 'below' } @$rules;
}

# What is in a folder. Dies where that can't be read: what is not seen must not count as not there.
sub entries
{
	my ($folder) = @_;
	return () unless is_folder($folder);
	opendir my $handle, $folder or die shown($folder) . " cannot be read: $!\n";
	my @names = sort grep { $_ ne '.' && $_ ne '..' } readdir $handle;
	closedir $handle;
	return @names;
}

# Does overlayfs show nothing of what lies below folder $path?
sub is_opaque
{
	my ($path) = @_;
	my %numbers = (x86_64 => 192, aarch64 => 9);
	my $number = $numbers{ (POSIX::uname())[4] } // return 0;
	my ($name, $value) = ('trusted.overlay.opaque', "\0" x 8);
	return syscall($number, $path, $name, $value, 8) >= 0 && substr($value, 0, 1) eq 'y';
}

# Are the contents of two regular files, links or others the same? Never opens anything but a regular file.
sub same_content
{
	my ($one, $two) = @_;
	my @one = lstat $one;
	my @two = lstat $two;
	return 0 unless @one && @two && S_IFMT($one[2]) == S_IFMT($two[2]);
	return readlink($one) eq readlink($two) if S_ISLNK($one[2]);
	return $one[6] == $two[6] unless S_ISREG($one[2]);
	return 0 unless $one[7] == $two[7];
	sysopen my $first, $one, O_RDONLY | O_NOFOLLOW or return 0;
	sysopen my $second, $two, O_RDONLY | O_NOFOLLOW or return 0;
	while (1) {
		my $count = sysread($first, my $left, 1 << 16) // return 0;
		my $other = sysread($second, my $right, 1 << 16) // return 0;
		return 0 unless $left eq $right;
		return 1 unless $count;
	}
}

# The same content, mode and owner? Of folders only these themselves are compared.
sub is_same
{
	my ($one, $two) = @_;
	my @one = lstat $one;
	my @two = lstat $two;
	return 0 unless @one && @two && $one[4] == $two[4] && $one[5] == $two[5] && ($one[2] == $two[2]);
	return S_ISDIR($one[2]) || same_content($one, $two);
}

# Makes folder $path below $base, its new parts like those below $like (or root's, 0755). What is in the way of it is moved aside.
sub make_folder
{
	my ($base, $path, $like) = @_;
	my $at = '';
	for my $part (grep { $_ ne '' } split m{/}, $path) {
		$at .= "/$part";
		next if is_folder("$base$at");
		if (lstat "$base$at") {
			my $aside = "$base$at.displaced";
			$aside .= '+' while lstat $aside;
			rename "$base$at", $aside or die shown("$base$at") . " is in the way: $!\n";
			print STDERR shown($at) . ' was in the way of a folder and is now ' . shown("$at.displaced") . "\n";
		}
		my @like = defined $like ? lstat "$like$at" : ();
		mkdir "$base$at", 0700 or die shown("$base$at") . " cannot be made: $!\n";
		chown $like[4], $like[5], "$base$at" if @like;
		chmod @like ? $like[2] & 07777 : 0755, "$base$at";
	}
}

sub read_file
{
	my ($path) = @_;
	sysopen my $handle, $path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK or return undef;
	return undef unless -f $handle;
	local $/;
	return scalar(<$handle>) // '';
}

1;
