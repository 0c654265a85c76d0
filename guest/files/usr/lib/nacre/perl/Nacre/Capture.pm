package Nacre::Capture;

# Takes what the user's packages brought from the running system into the applications volume.
use strict;
use warnings;
use Exporter 'import';
use Fcntl qw(:mode);
use Nacre::Files;
use Nacre::Dpkg;
use Nacre::Databases;
use Nacre::State;

our @EXPORT = qw(capture is_kept_path facts_of pending);

use constant ACCOUNTS => qw(passwd group shadow gshadow subuid subgid primary members ids);
use constant STAMP => '/run/nacre/transaction';

# Is what a package has at $path kept? Of what programs write at any time only the folders are, which they need.
sub is_kept_path
{
	my ($path, $is_folder) = @_;
	return 0 if !$is_folder && $path =~ m{^/var/(?:log|cache)/};
	return $path !~ m{^/(?:tmp|run|dev|proc|sys|home|root|boot|mnt|media|lost\+found|nacre-build)(?:/|$)|^/var/(?:tmp|run|lock)(?:/|$)
		|^/var/lib/(?:apt|nacre|ucf|systemd/(?!deb-systemd)|dbus|private)(?:/|$)|^/var/lib/dpkg/(?!info(?:/|$))
		|^/etc/(?:(?:passwd|group|shadow|gshadow|subuid|subgid)-?|\.pwd\.lock|\.updated|ld\.so\.preload|machine-id|mtab|resolv\.conf|hostname|hosts|fstab|adjtime)$
		|^/etc/alternatives(?:/|$)|\.(?:dpkg-(?:new|tmp|old|dist|bak)|nacre-new)$|^/var/\.updated$}x;
}

# May what a script made here be kept, although no package lists it?
sub is_kept_trace
{
	my ($path, $is_folder) = @_;
	return 0 if !is_kept_path($path, $is_folder) || $path =~ m{^/(?:var/lib/dpkg|usr/lib/nacre|etc/cron[^/]*|etc/sudoers\.d|etc/sudoers|var/spool/cron)(?:/|$)|__pycache__|\.pyc$};
	return 1;
}

# Facts that a transaction or a merged root has: packages, their stanzas, generated files, databases.
sub facts_of
{
	my ($folder) = @_;
	my %facts = (packages => {}, generated => [], delta => {}, merged => content($folder, '/merged') // 0, stack => content($folder, '/stack'));
	$facts{stack} =~ s/\n+\z// if defined $facts{stack};
	for my $line (lines($folder, '/packages')) {
		my ($name, $version, $mark, $how) = split /\t/, $line;
		$facts{packages}{$name} = { version => $version, mark => $mark, how => $how } if defined $how && $name =~ /^[a-z0-9][a-z0-9+.:-]+$/;
	}
	$facts{stanzas} = packages_of(content($folder, '/status'));
	for my $line (lines($folder, '/generated')) {
		my ($path, $base, $packages) = split /\t/, $line;
		push @{ $facts{generated} }, [$path, $base, [split / /, $packages]] if defined $packages && $path =~ m{^/} && is_kept_trace($path, 1);
	}
	my $databases = below($folder, '/db');
	for my $name (defined $databases ? entries($databases) : ()) {
		if (is_folder("$databases/$name")) {
			$facts{delta}{"$name/$_"} = content($databases, "/$name/$_") // '' for entries("$databases/$name");
		} else {
			$facts{delta}{$name} = content($databases, "/$name") // '';
		}
	}
	return \%facts;
}

# Finished transactions in $kept that are newer than $merged, oldest first.
sub pending
{
	my ($kept, $merged) = @_;
	return grep { $_ > $merged } grep { /^\d{6}$/ && is_folder("$kept/captured/$_") } entries("$kept/captured");
}

# What is known of the user's packages: the merged root and what was captured since.
sub known
{
	my ($kept) = @_;
	my $root = facts_of("$kept/root/var/lib/nacre/applications");
	my ($last) = reverse pending($kept, $root->{merged});
	return (defined $last ? facts_of("$kept/captured/$last") : $root, $last // $root->{merged});
}

# The user's packages among $have: those that the corporate layers lack, or have another version of.
sub users_packages
{
	my ($have, $corporate) = @_;
	return grep { !$corporate->{$_} || $corporate->{$_}{version} ne ($have->{$_}{version} // '') || state_name($corporate->{$_}) ne state_name($have->{$_}) } sort keys %$have;
}

sub state_name
{
	return is_installed($_[0]) ? 'installed' : (split / /, $_[0]{status} // '')[2] // '';
}

# $root: the running system ('' in use). Returns what should be said to the user, as lines.
sub capture
{
	my ($root, $volumes, $kept) = @_;
	my @layers = corporate_layers($volumes);
	my $corporate = corporate_packages(@layers);
	my $have = packages_of(content($root, '/var/lib/dpkg/status'));
	my @users = users_packages($have, $corporate);
	my ($before, $number) = known($kept);
	my @unsettled = grep { !is_settled($have->{$_}) } @users;
	# In the middle of an installation (apt unpacks first, and configures in a later call): what comes next says it all.
	return () if @unsettled && ($ENV{DPKG_HOOK_ACTION} // '') eq 'unpack';
	my @settled = grep { is_settled($have->{$_}) } @users;

	my (%marks, @changed);
	for my $name (@settled) {
		my @list = lstat "$root/var/lib/dpkg/info/" . info_name($have->{$name}) . '.list';
		$marks{$name} = @list ? $list[9] : 0;
		my $old = $before->{packages}{$name};
		push @changed, $name unless $old && $old->{version} eq ($have->{$name}{version} // '') && $old->{mark} eq $marks{$name};
	}

	# Files of the changed packages, and what scripts made meanwhile, where the corporate layers or the kept ones do not have it already.
	my @mounts = grep { $_ ne '/' && $_ ne '/etc' } map { (split / /)[0] } grep { !/ scratch / } lines('/run/nacre', '/layers');
	my $elsewhere = sub { my ($path) = @_; scalar grep { $path eq $_ || index($path, "$_/") == 0 } @mounts };
	my (%memory, %files, %states, %listed);
	my $note = sub {
		my ($path, $name) = @_;
		my $state = state_root($path);
		if (defined $state && !grep { lstat "$_$state" } @layers) {
			push @{ $states{$state} }, $name unless grep { $_ eq $name } @{ $states{$state} };
			return;
		}
		$files{$path} = 1 if is_kept_path($path, is_folder("$root$path")) && !$elsewhere->($path);
	};
	for my $name (@changed) {
		my $info = info_name($have->{$name});
		for my $line (lines($root, "/var/lib/dpkg/info/$info.list")) {
			my $path = place($root, $line, \%memory) // next;
			$listed{$path} = 1;
			$note->($path, $name);
		}
		$note->("/var/lib/dpkg/info/$_", $name) for info_files($root, $have->{$name});
	}
	my @traces = grep { !$listed{$_} } traces($volumes, $elsewhere);
	my @generated;
	for my $path (@traces) {
		my $state = state_root($path);
		if (defined $state && !grep { lstat "$_$state" } @layers) {
			$states{$state} //= [@changed] if -d "$root$state";
		} elsif (is_kept_trace($path, is_folder("$root$path")) && is_worth_keeping($root, $path)) {
			push @generated, $path;
		}
	}

	my %is_user = map { ($have->{$_}{package} => 1) } @settled;
	my $delta = capture_databases($root, \@layers, \%is_user);
	# Accounts are a package's where dpkg made them. Whoever else made one at another time made it in the settings.
	unless (defined $ENV{DPKG_HOOK_ACTION}) {
		delete @$delta{ (ACCOUNTS) };
		$delta->{$_} = $before->{delta}{$_} for grep { defined $before->{delta}{$_} } ACCOUNTS;
	}
	my %changed = map { $_ => 1 } @changed;
	my $packages = join '', (map { join("\t", $_, $have->{$_}{version} // '', $marks{$_}, $changed{$_} ? 'new' : 'kept') . "\n" } @settled),
		map { "$_\t$before->{packages}{$_}{version}\t0\tunsettled\n" } grep { $before->{packages}{$_} } @unsettled;

	my @said = said(\@settled, $have, $corporate);
	my $same = !@changed && !@generated && same_keys($before->{packages}, { map { $_ => 1 } @settled, grep { $before->{packages}{$_} } @unsettled })
		&& same_delta($before->{delta}, $delta);
	# First: a package without its state would be worse than a state without its package.
	adopt_state($kept, \%states);
	unless ($same) {
		$number = sprintf '%06d', $number + 1;
		make_folder($kept, '/captured', sub { (0700, 0, 0) }) or die "$kept/captured is no folder\n";
		my $new = "$kept/captured/$number.new";
		remove_tree(map { "$kept/captured/$_" } grep { !/^\d{6}$/ } entries("$kept/captured"));
		mkdir $new, 0700 or die "$new: $!\n";
		mkdir "$new/$_", $_ eq 'files' ? 0755 : 0700 or die "$new/$_: $!\n" for qw(files db db/alternatives db/triggers);
		step();
		copy_files($root, "$new/files", sort keys %files, @generated);
		step();
		write_file("$new/packages", $packages, 0600);
		write_file("$new/status", join("\n", map { "$have->{$_}{text}\n" } @settled), 0600);
		write_file("$new/generated", generated_lines(\@layers, \@generated, [@changed]), 0600);
		write_file("$new/db/$_", $delta->{$_}, 0600) for keys %$delta;
		# Where the next start is under other layers than these, what it can't carry can wait.
		write_file("$new/stack", content('/run/nacre', '/stack.key') // '', 0600);
		my %broken = map { $_->[0] => 1 } broken($have);
		write_file("$new/forced", join('', map { "$_\n" } grep { $broken{$_} } @settled), 0600);
		sync_volume($kept);
		step();
		rename $new, "$kept/captured/$number" or die "$kept/captured/$number: $!\n";
		step();
		sync_volume($kept);
	}
	unlink STAMP unless @unsettled;
	return @said;
}

# Says what will not be there at the next start as it is now.
sub said
{
	my ($settled, $have, $corporate) = @_;
	my @lines;
	my %is_user = map { $_ => 1 } @$settled;
	my @gone = grep { is_installed($corporate->{$_}) && !($have->{$_} && is_installed($have->{$_})) } sort keys %$corporate;
	push @lines, "belongs to the company's system, and is back at the next start: @gone" if @gone;
	my @older = grep { $corporate->{$_} && is_installed($have->{$_}) && compare_versions($have->{$_}{version}, $corporate->{$_}{version}) < 0 } @$settled;
	push @lines, "the company's system has a newer version, which is back at the next start: @older" if @older;
	if (@gone || @older) {
		my %next = (%$have, map { $_ => $corporate->{$_} } @gone, @older);
		my %now = map { ("$_->[0] $_->[1]", 1) } broken($have);
		push @lines, "$_->[0] cannot be kept beside that: it $_->[1]" for grep { !$now{"$_->[0] $_->[1]"} && $is_user{ $_->[0] } } broken(\%next);
	}
	return @lines;
}

sub same_keys
{
	my ($one, $other) = @_;
	return join(' ', sort keys %$one) eq join(' ', sort keys %$other);
}

sub same_delta
{
	my ($one, $other) = @_;
	my %names = map { $_ => 1 } grep { $_ ne 'ids' } keys %$one, keys %$other;
	return !grep { ($one->{$_} // '') ne ($other->{$_} // '') } keys %names;
}

# Paths below the writable layers of the root and of /etc that changed since the transaction began.
sub traces
{
	my ($volumes, $elsewhere) = @_;
	my @stamp = stat STAMP or return ();
	my @found;
	my $walk;
	$walk = sub {
		my ($base, $path) = @_;
		for my $name (entries("$base$path")) {
			my $each = "$path/$name";
			next if $name =~ /[\n\t]/ || $elsewhere->($each);
			my @state = lstat "$base$each" or next;
			if (S_ISDIR($state[2])) {
				next unless is_kept_path($each, 1) || $each =~ m{^/(?:var|var/lib|var/lib/dpkg|etc|var/lib/private|var/lib/systemd)$};
				push @found, $each if $state[10] >= $stamp[9];
				$walk->($base, $each);
			} elsif ((S_ISREG($state[2]) || S_ISLNK($state[2])) && $state[10] >= $stamp[9]) {
				push @found, $each;
			}
		}
	};
	$walk->("$volumes/scratch/root", '');
	for my $layer (qw(settings scratch)) {
		next unless is_folder("$volumes/$layer/etc");
		$walk->("$volumes/$layer", '/etc');
	}
	my %seen;
	return grep { !$seen{$_}++ } @found;
}

# A folder only where the corporate layers lack it is known at the merge; a link of systemd's only where its unit is there.
sub is_worth_keeping
{
	my ($root, $path) = @_;
	my @state = lstat "$root$path" or return 0;
	if ($path =~ m{^/etc/systemd/(?:system|user)/.+}) {
		return 1 if S_ISDIR($state[2]) && $path =~ m{\.(?:wants|requires)$};
		my $target = readlink("$root$path") // return 0;
		return $target =~ m{^(?:/usr)?/lib/systemd/} && lstat "$root$target";
	}
	return 1;
}

# PATH, what the corporate layers had there, and the packages that were installed meanwhile.
sub generated_lines
{
	my ($layers, $paths, $packages) = @_;
	my $of = @$packages ? join ' ', @$packages : '*';
	return join '', map { "$_\t" . base_of($layers, $_) . "\t$of\n" } @$paths;
}

# A name for what the corporate layers have at $path: '-' for nothing.
sub base_of
{
	my ($layers, $path) = @_;
	for my $layer (reverse @$layers) {
		my @state = lstat "$layer$path" or next;
		return 'folder' if S_ISDIR($state[2]);
		return 'link:' . unpack('H*', readlink "$layer$path") if S_ISLNK($state[2]);
		open my $sum, '-|', 'sha256sum', '--', "$layer$path" or return '?';
		my ($hash) = (<$sum> // '') =~ /^\\?([0-9a-f]{64})/;
		return $hash // '?';
	}
	return '-';
}

# Copies $paths with all that they are (owners as numbers, attributes, hard links) and the folders they are in.
sub copy_files
{
	my ($root, $target, @paths) = @_;
	my (%all, %done);
	for my $path (@paths) {
		my @state = lstat "$root$path" or next;
		next unless S_ISREG($state[2]) || S_ISLNK($state[2]) || S_ISDIR($state[2]);
		$all{$path} = 1;
		for (my $folder = $path; $folder =~ s{/[^/]+$}{} && $folder ne '';) {
			last if $done{$folder}++;
			$all{$folder} = 1;
		}
	}
	return unless %all;
	my @attributes = ('--xattrs', '--xattrs-include=*', '--numeric-owner');
	my $from = $root eq '' ? '/' : $root;
	pipe my $list, my $fill or die "$!\n";
	my $packer = open(my $archive, '-|') // die "$!\n";
	if (!$packer) {
		close $fill;
		open STDIN, '<&', $list;
		exec 'tar', '-C', $from, '--no-recursion', '--null', '--verbatim-files-from', '-T', '-', @attributes, '--warning=no-file-changed', '-cf', '-' or POSIX::_exit(127);
	}
	close $list;
	my $unpacker = fork // die "$!\n";
	if (!$unpacker) {
		close $fill;
		open STDIN, '<&', $archive;
		exec 'tar', '-C', $target, @attributes, '--same-owner', '-xpf', '-' or POSIX::_exit(127);
	}
	print $fill map { ".$_\0" } sort keys %all;
	close $fill;
	waitpid $unpacker, 0;
	my $unpacked = $?;
	close $archive;
	# 1: a file changed while it was read; what was read of it is in the archive.
	die "the files of the packages cannot be copied\n" if $unpacked || ($? >> 8) > 1;
}

1;
