package Nacre::Files;

# Files of trees that may have been tampered with: nothing here follows a symbolic link that it was not told to follow.
use strict;
use warnings;
use Exporter 'import';
use Fcntl qw(:DEFAULT :mode);
use IO::Handle;
use POSIX ();

our @EXPORT = qw(is_folder below entries content lines write_file make_folder resolve place sync_volume remove_tree run exchange step shown);

# No database of a system is larger: bounds memory.
use constant LARGEST => 256 * 1024 * 1024;

# Test hook: NACRE_FAULT=N ends the program by SIGKILL at its Nth step that changes something.
my $steps = $ENV{NACRE_FAULT} // 0;

sub step
{
	kill 'KILL', $$ if $steps && !--$steps;
}

# Is the path a directory, and no link to one?
sub is_folder
{
	my ($path) = @_;
	my @found = lstat $path;
	return @found && S_ISDIR($found[2]);
}

# $base . $path ($base '' or '/': the root) where every folder on the way from $base is one and no link; else undef. The last part may be anything, or missing.
sub below
{
	my ($base, $path) = @_;
	my @parts = grep { $_ ne '' } split m{/}, $path;
	$base =~ s{/$}{};
	return undef if !is_folder($base eq '' ? '/' : $base) || grep { $_ eq '..' || $_ eq '.' } @parts;
	my $last = pop @parts;
	my $at = $base;
	for my $part (@parts) {
		$at .= "/$part";
		return undef unless is_folder($at);
	}
	return defined $last ? "$at/$last" : $at;
}

sub entries
{
	my ($folder) = @_;
	return () unless is_folder($folder);
	opendir my $handle, $folder or return ();
	my @names = sort grep { $_ ne '.' && $_ ne '..' } readdir $handle;
	closedir $handle;
	return @names;
}

# The content of regular file $path below $base; undef where there is none.
sub content
{
	my ($base, $path) = @_;
	my $file = below($base, $path) // return undef;
	sysopen my $handle, $file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK or return undef;
	my @found = stat $handle;
	return undef unless S_ISREG($found[2]) && $found[7] <= LARGEST;
	local $/;
	return scalar(<$handle>) // '';
}

sub lines
{
	return split /\n/, content(@_) // '';
}

# Replaces file $path by $content, durably. Its folder must be one that nobody else can change, or made by us.
sub write_file
{
	my ($path, $content, $mode, $uid, $gid) = @_;
	my $new = "$path.nacre-new";
	unlink $new;
	sysopen my $handle, $new, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600 or die shown($new) . " cannot be written: $!\n";
	print $handle $content or die shown($new) . " cannot be written: $!\n";
	$handle->flush && $handle->sync && close $handle or die shown($new) . " cannot be written: $!\n";
	chown $uid // 0, $gid // 0, $new or die shown($new) . ": $!\n";
	chmod $mode // 0644, $new or die shown($new) . ": $!\n";
	rename $new, $path or die shown($path) . " cannot be replaced: $!\n";
}

# Makes folder $path below $base where it is missing, its new parts as $like->($part) says: (mode, uid, gid). False at anything but a folder.
sub make_folder
{
	my ($base, $path, $like) = @_;
	my $at = '';
	for my $part (grep { $_ ne '' } split m{/}, $path) {
		$at .= "/$part";
		next if is_folder("$base$at");
		return 0 if lstat "$base$at";
		my ($mode, $uid, $gid) = $like ? $like->($at) : ();
		mkdir "$base$at", 0700 or die "$base$at cannot be made: $!\n";
		chown $uid // 0, $gid // 0, "$base$at" or die "$base$at: $!\n";
		chmod $mode // 0755, "$base$at" or die "$base$at: $!\n";
	}
	return 1;
}

# The path that $path has in the system whose root is $root, with the links on the way resolved as in a chroot; undef where they go round.
sub resolve
{
	my ($root, $path) = @_;
	my @todo = split m{/+}, $path;
	my @done;
	my $links = 0;
	while (defined(my $part = shift @todo)) {
		next if $part eq '' || $part eq '.';
		if ($part eq '..') {
			pop @done;
			next;
		}
		my $target = readlink join '/', $root, @done, $part;
		if (!defined $target) {
			push @done, $part;
			next;
		}
		return undef if ++$links > 40;
		@done = () if $target =~ m{^/};
		unshift @todo, split m{/+}, $target;
	}
	return join '/', '', @done;
}

# The place of a file named $path: its folder resolved, its own name kept. $memory (a hash) makes many calls cheap.
sub place
{
	my ($root, $path, $memory) = @_;
	$path =~ s{/+$}{};
	my ($folder, $name) = $path =~ m{^(.*)/([^/]+)$} or return undef;
	return undef if $name eq '.' || $name eq '..';
	$memory->{$folder} = resolve($root, $folder) unless exists $memory->{$folder};
	return defined $memory->{$folder} ? "$memory->{$folder}/$name" : undef;
}

sub run
{
	my @words = @_;
	return system(@words) == 0;
}

# Everything written to the file systems that hold these paths is on their disks when this returns.
sub sync_volume
{
	run('sync', '-f', '--', @_) or die "what was written cannot be made durable: " . join(', ', map { shown($_) } @_) . "\n";
}

# Removes these and all below them, never through a link.
sub remove_tree
{
	!@_ or run('rm', '-rf', '--one-file-system', '--', @_) or die "cannot be removed: " . join(', ', map { shown($_) } @_) . "\n";
}

# A path for a message: one line, no control characters.
sub shown
{
	my ($path) = @_;
	$path =~ s/([\x00-\x1f\x7f])/sprintf '\\x%02x', ord $1/ge;
	return $path;
}

# Exchanges two folders in one step (renameat2 with RENAME_EXCHANGE).
sub exchange
{
	my ($one, $other) = @_;
	my %number = (x86_64 => 316, aarch64 => 276, riscv64 => 276);
	my $machine = (POSIX::uname())[4];
	my $call = $number{$machine} // die "renameat2 has no known number on $machine\n";
	syscall($call, -100, $one, -100, $other, 2) == 0 or die "$one and $other cannot be exchanged: $!\n";
}

1;
