package Nacre::State;

# The folders in which the user's packages keep what they work with (a database's data). They are on the applications volume from the end of
# the installation on, bound to their place, so that what a program has flushed there is kept whatever happens.
use strict;
use warnings;
use Exporter 'import';
use Fcntl qw(:mode);
use Nacre::Files;

our @EXPORT = qw(state_root state_list kept_folder adopt_state bind_state release_state settle_released keep_unbound);

use constant RELEASED => '/run/nacre/released';

# The folder of state that $path is or is in; undef where it is in none.
sub state_root
{
	my ($path) = @_;
	return undef if $path =~ m{^/var/lib/(?:dpkg|apt|ucf|nacre|systemd|dbus|pam|private)(?:/|$)} && $path !~ m{^/var/lib/private/[^/]+};
	return $path =~ m{^(/var/lib/private/[A-Za-z0-9][^/\s]*|/var/(?:lib|spool|games)/[A-Za-z0-9][^/\s]*|/srv/[A-Za-z0-9][^/\s]*|/var/www)(?:/|$)} ? $1 : undef;
}

# path => [packages], of what is kept in $kept (the applications volume's .nacre).
sub state_list
{
	my ($kept) = @_;
	my %list;
	for my $line (lines($kept, '/state.list')) {
		my ($path, @packages) = split /[ \t]+/, $line;
		$list{$path} = \@packages if defined $path && (state_root($path) // '') eq $path && is_folder(kept_folder($kept, $path));
	}
	return \%list;
}

sub write_state_list
{
	my ($kept, $list) = @_;
	write_file("$kept/state.list", join('', map { join(' ', $_, @{ $list->{$_} }) . "\n" } sort keys %$list), 0600);
}

sub kept_folder
{
	my ($kept, $path) = @_;
	my $name = substr $path, 1;
	$name =~ s{%}{%25}g;
	$name =~ s{/}{%2F}g;
	return "$kept/state/$name";
}

# Mounts are made where everybody sees them, also when apt runs in a namespace of its own (PackageKit).
sub in_system
{
	my $own = readlink '/proc/self/ns/mnt';
	my $systems = readlink '/proc/1/ns/mnt';
	return -d '/run/systemd/system' && defined $own && defined $systems && $own ne $systems ? ('nsenter', '-t', '1', '-m', '--') : ();
}

sub is_mounted
{
	my ($path) = @_;
	open my $mounts, '<', '/proc/self/mountinfo' or return 0;
	return scalar grep { (split / /)[4] eq $path } <$mounts>;
}

# Services that have files open below $path, and whether anything else has.
sub users_of
{
	my ($path) = @_;
	my (%services, $others);
	for my $process (grep { /^\d+$/ && $_ != $$ } entries('/proc')) {
		my @open = grep { defined } map { readlink } "/proc/$process/cwd", map { "/proc/$process/fd/$_" } entries("/proc/$process/fd");
		next unless grep { $_ eq $path || index($_, "$path/") == 0 } @open;
		my ($group) = grep { m{^0::} } lines('/proc', "/$process/cgroup");
		if (($group // '') =~ m{^0::/system\.slice/(?:.*/)?([^/]+\.service)} && $1 !~ /^(?:dbus|systemd-|packagekit|qemu-guest-agent)/) {
			$services{$1} = 1;
		} else {
			$others = 1;
		}
	}
	return ([sort keys %services], $others);
}

# Moves the folders $paths (path => [packages]) to the kept volume and binds them. Services that use one are stopped for that moment. What
# anything else uses is copied as it is, and once more at a clean end (keep_unbound).
sub adopt_state
{
	my ($kept, $paths) = @_;
	my $list = state_list($kept);
	for my $path (sort keys %$paths) {
		next if is_mounted($path) || !is_folder($path);
		my ($services, $others) = users_of($path);
		run('systemctl', 'stop', '--', @$services) if @$services;
		my $is_in_use = $others || (@$services && @{ (users_of($path))[0] });
		step();
		copy_state($kept, $path);
		step();
		$list->{$path} = $paths->{$path};
		write_state_list($kept, $list);
		sync_volume($kept);
		step();
		if ($is_in_use) {
			print STDERR "nacre: $path is in use: what is written there from now on is kept at the next clean shutdown\n";
		} else {
			bind_one($kept, $path);
		}
		# Ready when dpkg ends; but who installs while the system starts may be what they wait for.
		run('timeout', '60', 'systemctl', 'start', '--', @$services) if @$services;
	}
}

# Copies the folder under another name first, so that a kill leaves no half of it.
sub copy_state
{
	my ($kept, $path) = @_;
	my $place = kept_folder($kept, $path);
	make_folder($kept, '/state', sub { (0700, 0, 0) });
	remove_tree("$place.new");
	run('cp', '-a', '--', $path, "$place.new") or die "$path cannot be copied\n";
	sync_volume($kept);
	remove_tree("$place.old");
	rename $place, "$place.old" if is_folder($place);
	rename "$place.new", $place or die "$place: $!\n";
	remove_tree("$place.old");
}

sub bind_one
{
	my ($kept, $path) = @_;
	return 1 if is_mounted($path);
	return 0 if (resolve('', $path) // '') ne $path || !is_folder($path);
	return run(in_system(), 'mount', '--bind', kept_folder($kept, $path), $path);
}

# At the start: binds all that is kept.
sub bind_state
{
	my ($kept) = @_;
	for my $path (sort keys %{ state_list($kept) }) {
		if (!lstat $path) {
			my @like = lstat kept_folder($kept, $path);
			(resolve('', $path) // '') eq $path && make_folder('', $path, sub { $_[0] eq $path ? ($like[2] & 07777, @like[4, 5]) : () });
		}
		bind_one($kept, $path) or print STDERR "nacre: $path cannot be bound: what belongs there is in " . kept_folder($kept, $path) . "\n";
	}
}

# Before packages are purged: their scripts remove their folders, which a mount would not let them.
sub release_state
{
	my ($kept, @packages) = @_;
	my $list = state_list($kept);
	my %purged = map { s/:.*//r => 1 } @packages;
	for my $path (sort keys %$list) {
		next unless is_mounted($path) && grep { $purged{ s/:.*//r } } @{ $list->{$path} };
		run(in_system(), 'umount', '-l', $path) or next;
		open my $note, '>>', RELEASED or next;
		print $note "$path\n";
	}
}

# After it: forgets the folders that are gone, and binds the others again.
sub settle_released
{
	my ($kept) = @_;
	return unless -e RELEASED;
	my $list = state_list($kept);
	for my $path (lines('/run/nacre', '/released')) {
		next unless $list->{$path};
		if (lstat $path) {
			bind_one($kept, $path);
		} else {
			delete $list->{$path};
			write_state_list($kept, $list);
			sync_volume($kept);
			remove_tree(kept_folder($kept, $path));
		}
	}
	unlink RELEASED;
}

# At a clean end: the folders that could not be bound, now that nothing uses them.
sub keep_unbound
{
	my ($kept) = @_;
	copy_state($kept, $_) for grep { !is_mounted($_) && is_folder($_) } sort keys %{ state_list($kept) };
}

1;
