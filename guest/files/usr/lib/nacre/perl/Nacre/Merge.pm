package Nacre::Merge;

# Makes the layer of the user's packages for the corporate layers that start. Runs before anything of the guest does, in a chroot of the
# corporate layers alone: nothing of the user's is executed, and what the applications volume holds is only read, linked and checked.
use strict;
use warnings;
use Exporter 'import';
use Fcntl qw(:mode);
use POSIX ();
use Nacre::Files;
use Nacre::Dpkg;
use Nacre::Databases;
use Nacre::State;
use Nacre::Capture;

our @EXPORT = qw(merge plan is_current FACTS);

use constant FACTS => '/var/lib/nacre/applications';

# Stack changes that a package which is not needed or not possible now is kept through: an update on trial may go back.
use constant GENERATIONS => 2;

# What is to become of the user's packages under $corporate (name => stanza). Returns:
#   packages  those carried: name => { source, stanza, mark }
#   dropped   name => why ('corporate': the company's layers have it, 'conflict')
#   conflicts [{ package, version, reason }]
#   sources   where files are, newest first
sub plan
{
	my ($kept, $corporate) = @_;
	my $facts = facts_of("$kept/root" . FACTS);
	my @sources = ({ name => 'dormant', files => "$kept/root" . FACTS . '/dormant/files', facts => facts_of("$kept/root" . FACTS . '/dormant') }, { name => 'root', files => "$kept/root", facts => $facts });
	push @sources, { name => $_, files => "$kept/captured/$_/files", facts => facts_of("$kept/captured/$_"), forced => [lines("$kept/captured/$_", '/forced')] } for pending($kept, $facts->{merged});

	my (%all, %forced);
	for my $source (@sources) {
		my $now = $source->{facts}{packages};
		if ($source->{name} =~ /^\d/) {
			delete @all{ grep { !$now->{$_} && !$all{$_}{generation} } keys %all };
			%forced = map { $_ => 1 } @{ $source->{forced} };
		}
		for my $name (keys %$now) {
			my $stanza = $source->{facts}{stanzas}{$name};
			next if $now->{$name}{how} eq 'unsettled' || !$stanza || ($stanza->{version} // '') ne $now->{$name}{version};
			next if $now->{$name}{how} eq 'kept' && !$all{$name};
			$all{$name} = {
				source => $now->{$name}{how} eq 'kept' ? $all{$name}{source} : $source,
				stanza => $stanza,
				mark => $now->{$name}{mark},
				generation => $source->{name} eq 'dormant' ? $now->{$name}{how} =~ /^(\d)$/ ? $1 : 1 : 0,
			};
		}
	}

	my (%dropped, @conflicts);
	for my $name (keys %all) {
		my $theirs = $corporate->{$name} // next;
		next if is_installed($all{$name}{stanza}) && (!is_installed($theirs) || compare_versions($all{$name}{stanza}{version}, $theirs->{version}) > 0);
		$dropped{$name} = 'corporate';
	}
	my %known = map { ("$_->[0] $_->[1]", 1) } broken($corporate);
	while (1) {
		my %next = (%$corporate, map { $_ => $all{$_}{stanza} } grep { !$dropped{$_} } keys %all);
		my @drop;
		for my $problem (broken(\%next)) {
			my ($name, $why, $about) = @$problem;
			next if $known{"$name $why"};
			my @blamed = $all{$name} && !$dropped{$name} ? ($name) : grep { $all{$_} && !$dropped{$_} } @$about;
			push @drop, map { [$_, $_ eq $name ? $why : "the company's $name $why"] } grep { !$forced{$_} } @blamed;
		}
		last unless @drop;
		# Those that were asleep were not in use: they go on sleeping, and are nobody's loss.
		for my $each (@drop) {
			my ($name, $why) = @$each;
			next if $dropped{$name};
			$dropped{$name} = 'conflict';
			push @conflicts, { package => $name, version => $all{$name}{stanza}{version}, reason => $why } unless $all{$name}{generation};
		}
	}
	return {
		packages => { map { $_ => $all{$_} } grep { !$dropped{$_} } keys %all },
		dormant => { map { $_ => $all{$_} } grep { $dropped{$_} } keys %all },
		dropped => \%dropped,
		conflicts => [sort { $a->{package} cmp $b->{package} } @conflicts],
		sources => [reverse @sources],
		facts => $facts,
		delta => $sources[-1]{facts}{delta},
		stack => $sources[-1]{facts}{stack} // $facts->{stack},
		last => $sources[-1]{name} =~ /^\d/ ? $sources[-1]{name} : $facts->{merged},
	};
}

# Is there nothing to merge?
sub is_current
{
	my ($kept, $stack) = @_;
	my $facts = "$kept/root" . FACTS;
	return 0 if pending($kept, content($facts, '/merged') // 0);
	return !is_folder("$kept/root") || (content($facts, '/stack') // '') eq $stack;
}

# Returns (0) when merged, or (3, conflicts) where that is postponed.
sub merge
{
	my ($volumes, $kept, $stack, $choice) = @_;
	# The chroot shows all of the corporate layers.
	my @layers = ('');
	finish_renumbering($volumes, $kept);
	remove_tree("$kept/root.new") if lstat "$kept/root.new";
	return 0 if is_current($kept, $stack);
	my $corporate = corporate_packages(@layers);
	my $plan = plan($kept, $corporate);
	my $moved = defined $plan->{stack} && $plan->{stack} ne $stack;
	# Under the same corporate layers there is nothing to postpone to.
	return (3, $plan->{conflicts}) if @{ $plan->{conflicts} } && $moved && $choice eq 'postpone';

	my $new = "$kept/root.new";
	mkdir $new, 0755 or die "$new: $!\n";
	step();
	my $maker = { new => $new, layers => \@layers, memory => {}, made => {}, changes => {} };
	my ($accounts, $ids, $changes) = merge_accounts(\@layers, $plan->{delta});
	$maker->{changes} = $changes;
	place_packages($maker, $plan);
	place_generated($maker, $plan);
	hide_replaced($maker, $plan, $corporate);
	place_databases($maker, $plan, $corporate, $accounts);
	place_dormant($maker, $plan, $moved);
	place_state($maker, $kept);
	write_facts($maker, $plan, $stack, $ids, $moved, $choice);
	plan_renumbering($maker);
	step();
	sync_volume($kept);
	step();
	if (is_folder("$kept/root")) {
		exchange($new, "$kept/root");
	} else {
		rename $new, "$kept/root" or die "$kept/root: $!\n";
	}
	step();
	sync_volume($kept);
	step();
	finish_renumbering($volumes, $kept);
	remove_tree($new, map { "$kept/captured/$_" } entries("$kept/captured"));
	sync_volume($kept);
	return 0;
}

# What the corporate layers have at $path: its lstat, or nothing.
sub corporate
{
	my ($maker, $path) = @_;
	for my $layer (reverse @{ $maker->{layers} }) {
		my @state = below($layer, $path) ? lstat "$layer$path" : ();
		return @state if @state;
	}
	return ();
}

sub exists_in
{
	my ($maker, $path) = @_;
	return 0 if $path !~ m{^/};
	my $resolved = resolve('', $path) // return 0;
	return 1 if lstat "$maker->{new}$resolved" or lstat "$maker->{new}$path";
	return scalar(() = corporate($maker, $resolved));
}

# Makes the folders above $path: like the corporate ones, else like those of the source. False where something else is in the way.
sub folders
{
	my ($maker, $path, $source) = @_;
	my $folder = $path =~ s{/[^/]+$}{}r;
	return 1 if $maker->{made}{$folder};
	my $made = make_folder($maker->{new}, $folder, sub {
		my ($part) = @_;
		my @state = corporate($maker, $part);
		return ($state[2] & 07777, @state[4, 5]) if @state && S_ISDIR($state[2]);
		@state = lstat "$source$part" if defined $source && below($source, $part);
		return @state && S_ISDIR($state[2]) ? ($state[2] & 07777, owner($maker, @state[4, 5])) : (0755, 0, 0);
	});
	$maker->{made}{$folder} = 1 if $made;
	return $made;
}

sub owner
{
	my ($maker, $uid, $gid) = @_;
	return ($maker->{changes}{passwd}{$uid} // $uid, $maker->{changes}{group}{$gid} // $gid);
}

# Puts what source folder $from has at $path into the new root at $to. Files are linked, so a merge writes no data twice.
sub put
{
	my ($maker, $from, $path, $to) = @_;
	my $file = below($from, $path) // return 0;
	my @state = lstat $file or return 0;
	return 0 if lstat("$maker->{new}$to") && !S_ISDIR($state[2]);
	my @corporate = corporate($maker, $to);
	if (S_ISDIR($state[2])) {
		return 0 if @corporate && !S_ISDIR($corporate[2]);
		return folders($maker, "$to/.", $from);
	}
	return 0 unless S_ISREG($state[2]) || S_ISLNK($state[2]);
	# A file would hide a whole folder of the company's.
	return 0 if @corporate && S_ISDIR($corporate[2]);
	return 0 unless folders($maker, $to, $from);
	my ($uid, $gid) = owner($maker, @state[4, 5]);
	step();
	if ($uid == $state[4] && $gid == $state[5]) {
		link $file, "$maker->{new}$to" or die "$to: $!\n";
	} else {
		# Its owner's number changes: a file of its own, so that the layer as it was stays as it was.
		run('cp', '-a', '--no-dereference', '--', $file, "$maker->{new}$to") or die "$to cannot be copied\n";
		run('chown', '-h', "$uid:$gid", '--', "$maker->{new}$to") or die "$to: its owner cannot be set\n";
		run('chmod', sprintf('%o', $state[2] & 07777), '--', "$maker->{new}$to") if S_ISREG($state[2]);
	}
	return 1;
}

sub place_packages
{
	my ($maker, $plan) = @_;
	my @order = @{ $plan->{sources} };
	for my $source (@order) {
		for my $name (sort grep { $plan->{packages}{$_}{source} == $source } keys %{ $plan->{packages} }) {
			place_package($maker, $source, $plan->{packages}{$name}{stanza}, $maker->{new});
		}
	}
}

sub place_package
{
	my ($maker, $source, $stanza) = @_;
	put($maker, $source->{files}, "/var/lib/dpkg/info/$_", "/var/lib/dpkg/info/$_") for info_files($source->{files}, $stanza);
	my $list = '/var/lib/dpkg/info/' . info_name($stanza) . '.list';
	for my $line (lines($source->{files}, $list)) {
		my $path = place('', $line, $maker->{memory}) // next;
		next if !is_kept_path($path, is_folder("$source->{files}$path"));
		my $state = state_root($path);
		next if defined $state && !corporate($maker, $state);
		put($maker, $source->{files}, $path, $path) || ($line ne $path && put($maker, $source->{files}, $line, $path));
		$maker->{listed}{$path} = 1;
	}
}

# What scripts made: kept while a package that was installed with it is, and the company's file that it replaced is the same.
sub place_generated
{
	my ($maker, $plan) = @_;
	my %seen;
	# The company's file is not replaced where it was moved out of the way.
	my %diverted = map { $_->[0] => 1 } diversions($plan);
	for my $source (grep { $_->{name} ne 'dormant' } @{ $plan->{sources} }) {
		for my $entry (@{ $source->{facts}{generated} }) {
			my ($path, $base, $of) = @$entry;
			next if $seen{$path}++;
			next unless %{ $plan->{packages} } && ($of->[0] // '') eq '*' || grep { $plan->{packages}{$_} } @$of;
			my $to = place('', $path, $maker->{memory}) // next;
			next if !is_kept_trace_here($maker, $to, is_folder("$source->{files}$path"));
			my $now = Nacre::Capture::base_of($maker->{layers}, $to);
			if ($now ne $base && !$diverted{$path}) {
				$maker->{stale} = 1;
				next;
			}
			my $target = readlink "$source->{files}$path";
			next if $to =~ m{^/etc/systemd/} && defined $target && !exists_in($maker, $target);
			next if !put($maker, $source->{files}, $path, $to);
			push @{ $maker->{generated} }, [$to, $base, $of];
		}
	}
}

sub is_kept_trace_here
{
	my ($maker, $path, $is_folder) = @_;
	my $state = state_root($path);
	return Nacre::Capture::is_kept_trace($path, $is_folder) && !(defined $state && !corporate($maker, $state));
}

# What the user's packages diverted: [from, to].
sub diversions
{
	my ($plan) = @_;
	my @lines = split /\n/, $plan->{delta}{diversions} // '';
	my @found;
	while (my ($from, $to, $by) = splice @lines, 0, 3) {
		push @found, [$from, $to] if defined $by && ($by eq ':' || $plan->{packages}{$by}) && is_kept_path($from) && is_kept_path($to);
	}
	return @found;
}

# Files of a corporate package that the user's newer version of it no longer has, and diverted files of the company's.
sub hide_replaced
{
	my ($maker, $plan, $corporate) = @_;
	my @replaced = grep { $corporate->{$_} && is_installed($corporate->{$_}) } keys %{ $plan->{packages} };
	my @hidden;
	if (@replaced) {
		my (%theirs, %others);
		my %is_replaced = map { $_ => 1 } @replaced;
		for my $name (keys %$corporate) {
			my ($text) = grep { defined } map { content($_, '/var/lib/dpkg/info/' . info_name($corporate->{$name}) . '.list') } reverse @{ $maker->{layers} };
			my $into = $is_replaced{$name} ? \%theirs : \%others;
			$into->{$_} = 1 for grep { defined } map { place('', $_, $maker->{memory}) } split /\n/, $text // '';
		}
		push @hidden, grep { my @state = corporate($maker, $_); @state && !S_ISDIR($state[2]) && $_ !~ m{^/etc/} && !$others{$_} && !$maker->{listed}{$_} && is_kept_path($_) } keys %theirs;
		# Its own notes in dpkg's folder, where the new version has none of that kind.
		for my $name (@replaced) {
			push @hidden, grep { !lstat "$maker->{new}$_" } map { my $layer = $_; map { "/var/lib/dpkg/info/$_" } info_files($layer, $corporate->{$name}) } @{ $maker->{layers} };
		}
	}
	for my $diversion (diversions($plan)) {
		my ($from, $to) = @$diversion;
		($from, $to) = map { place('', $_, $maker->{memory}) } $from, $to;
		next unless defined $from && defined $to;
		my @state = corporate($maker, $from);
		next unless @state && (S_ISREG($state[2]) || S_ISLNK($state[2]));
		my ($layer) = grep { lstat "$_$from" } reverse @{ $maker->{layers} };
		folders($maker, $to) or next;
		unlink "$maker->{new}$to";
		run('cp', '-a', '--', "$layer$from", "$maker->{new}$to") or die "$to cannot be written\n";
		push @hidden, $from unless lstat "$maker->{new}$from";
	}
	my %done;
	for my $path (grep { !$done{$_}++ } @hidden) {
		next unless folders($maker, $path) && !lstat "$maker->{new}$path";
		run('mknod', "$maker->{new}$path", 'c', '0', '0') or die "$path cannot be hidden\n";
	}
}

sub place_databases
{
	my ($maker, $plan, $corporate, $accounts) = @_;
	my $new = $maker->{new};
	my %of = ((map { $corporate->{$_}{package} => 'corporate' } keys %$corporate), map { $plan->{packages}{$_}{stanza}{package} => 'user' } keys %{ $plan->{packages} });
	my %names = map { my $kind = $_; $kind => { map { (split /:/)[0] => 1 } split /\n/, $accounts->{$kind} // join "\n", map { lines($_, "/etc/$kind") } @{ $maker->{layers} } } } qw(passwd group);
	my $write = sub {
		my ($path, $content, $mode, $uid, $gid) = @_;
		folders($maker, $path) or die "$path: a folder of it is none\n";
		step();
		write_file("$new$path", $content, $mode, $uid, $gid);
	};
	for my $name (keys %$accounts) {
		my @like = corporate($maker, "/etc/$name");
		my $content = $accounts->{$name};
		next if $content eq '' && !@like;
		$write->("/etc/$name", $content, @like ? $like[2] & 07777 : $name =~ /shadow/ ? 0640 : 0644, @like ? @like[4, 5] : (0, 0));
	}
	if (%{ $plan->{packages} }) {
		my %all = (%$corporate, map { $_ => $plan->{packages}{$_}{stanza} } keys %{ $plan->{packages} });
		$write->('/var/lib/dpkg/status', join("\n", map { "$all{$_}{text}\n" } sort keys %all), 0644, 0, 0);
		my ($files, $links) = merge_databases($maker->{layers}, $plan->{delta}, \%of, sub { exists_in($maker, $_[0]) }, \%names);
		$write->(@$_) for @$files;
		for my $link (sort keys %$links) {
			my $to = place('', $link, $maker->{memory}) // next;
			my @corporate = corporate($maker, $to);
			next if $link !~ m{^/(?:etc/alternatives|usr|bin|sbin|lib)/} || (@corporate && !S_ISLNK($corporate[2])) || !folders($maker, $to);
			my @mine = lstat "$new$to";
			next if @mine && !S_ISLNK($mine[2]) && !S_ISCHR($mine[2]);
			unlink "$new$to";
			if ($links->{$link} ne '') {
				symlink $links->{$link}, "$new$to" or die "$to: $!\n";
			} elsif (@corporate) {
				run('mknod', "$new$to", 'c', '0', '0');
			}
		}
	}
}

# Packages that are not used under this stack are kept for the way back.
sub place_dormant
{
	my ($maker, $plan, $moved) = @_;
	my %kept;
	for my $name (keys %{ $plan->{dormant} }) {
		my $generation = $plan->{dormant}{$name}{generation} + ($moved || !$plan->{dormant}{$name}{generation} ? 1 : 0);
		$kept{$name} = $generation if $generation <= GENERATIONS;
	}
	$maker->{dormant} = \%kept;
	return unless %kept;
	my $facts = $maker->{new} . FACTS;
	make_folder($maker->{new}, FACTS . '/dormant/files') or die "$facts: a folder of it is none\n";
	my $below = { %$maker, new => "$facts/dormant/files", layers => ["$facts/dormant/nothing"], made => {}, listed => {}, memory => $maker->{memory} };
	for my $source (@{ $plan->{sources} }) {
		place_package($below, $source, $plan->{dormant}{$_}{stanza}) for sort grep { $plan->{dormant}{$_}{source} == $source } keys %kept;
	}
	write_file("$facts/dormant/packages", join('', map { join("\t", $_, $plan->{dormant}{$_}{stanza}{version}, $plan->{dormant}{$_}{mark}, $kept{$_}) . "\n" } sort keys %kept), 0600);
	write_file("$facts/dormant/status", join("\n", map { "$plan->{dormant}{$_}{stanza}{text}\n" } sort keys %kept), 0600);
}

# Places for the folders of state to be bound to.
sub place_state
{
	my ($maker, $kept) = @_;
	for my $path (keys %{ state_list($kept) }) {
		my @like = lstat kept_folder($kept, $path);
		folders($maker, $path) or next;
		next if corporate($maker, $path) || lstat "$maker->{new}$path";
		make_folder($maker->{new}, $path, sub { ($like[2] & 07777, owner($maker, @like[4, 5])) });
	}
}

sub write_facts
{
	my ($maker, $plan, $stack, $ids, $moved, $choice) = @_;
	my $facts = $maker->{new} . FACTS;
	make_folder($maker->{new}, FACTS . '/db') or die "$facts: a folder of it is none\n";
	chmod 0700, $facts;
	my $packages = $plan->{packages};
	write_file("$facts/stack", $stack, 0600);
	write_file("$facts/merged", $plan->{last}, 0600);
	write_file("$facts/packages", join('', map { join("\t", $_, $packages->{$_}{stanza}{version}, $packages->{$_}{mark}, 'new') . "\n" } sort keys %$packages), 0600);
	write_file("$facts/status", join("\n", map { "$packages->{$_}{stanza}{text}\n" } sort keys %$packages), 0600);
	write_file("$facts/generated", join('', map { join("\t", $_->[0], $_->[1], join ' ', @{ $_->[2] }) . "\n" } @{ $maker->{generated} // [] }), 0600);
	my %delta = (%{ $plan->{delta} }, ids => $ids);
	for my $kind (qw(passwd group)) {
		my %final = map { (split /:/)[1, 2] } grep { /^$kind:/ } split /\n/, $ids;
		my @rows = map { [split /:/, $_, -1] } split /\n/, $delta{$kind} // '';
		$delta{$kind} = join '', map { join(':', $_->[0], $_->[1], $final{ $_->[0] } // $_->[2], @$_[3 .. $#$_]) . "\n" } grep { @$_ > 2 } @rows;
	}
	for my $name (grep { m{^(?:(?:alternatives|triggers)/)?[A-Za-z0-9][A-Za-z0-9+._-]*$} } keys %delta) {
		make_folder($facts, "/db/$1") if $name =~ m{^(.*)/};
		write_file("$facts/db/$name", $delta{$name}, 0600);
	}
	my @notes;
	for my $conflict (@{ $plan->{conflicts} }) {
		push @notes, "$conflict->{package} $conflict->{version} was taken out: " . ($conflict->{reason} =~ /^the company's/ ? '' : 'it ') . $conflict->{reason};
	}
	write_file("$facts/notes", join('', map { "$_\n" } @notes), 0600) if @notes;
	write_file("$facts/reinstall", join('', map { "$_->{package}\n" } @{ $plan->{conflicts} }), 0600) if @{ $plan->{conflicts} } && $choice eq 'reinstall';
	write_file("$facts/stale", '', 0600) if $moved || $maker->{stale};
}

# Ids of accounts that changed, in what is kept and not made anew. The note is in the new root, so it holds from the exchange on; the work is
# done in two passes that can each be repeated.
sub plan_renumbering
{
	my ($maker) = @_;
	my $text = join '', map { my $kind = $_; map { "$kind $_ $maker->{changes}{$kind}{$_}\n" } sort keys %{ $maker->{changes}{$kind} // {} } } qw(passwd group);
	write_file($maker->{new} . FACTS . '/renumber', "1\n$text", 0600) if $text ne '';
}

use constant ASIDE => 0x40000000;

sub finish_renumbering
{
	my ($volumes, $kept) = @_;
	my $facts = "$kept/root" . FACTS;
	return unless defined below("$kept/root", FACTS) && is_folder($facts);
	my ($phase, @lines) = lines($facts, '/renumber');
	return unless defined $phase;
	my %changes;
	for my $line (@lines) {
		$changes{$1}{$2} = $3 if $line =~ /^(passwd|group) ([1-9]\d{0,2}) ([1-9]\d{0,2})$/;
	}
	for my $pass (1, 2) {
		next if $pass < $phase;
		renumber_tree("$volumes/$_->[0]", '', $_->[1], \%changes, $pass) for ['applications', qr{^/\.nacre/(?:root|root\.new|captured)$}], ['settings', qr{^/\.nacre$}];
		sync_volume("$volumes/$_") for grep { is_folder("$volumes/$_") } qw(applications settings);
		write_file("$facts/renumber", "2\n" . join('', map { "$_\n" } @lines), 0600) if $pass == 1;
		sync_volume($kept);
		step();
	}
	unlink "$facts/renumber";
	sync_volume($kept);
}

sub renumber_tree
{
	my ($base, $path, $skip, $changes, $pass) = @_;
	for my $name (entries("$base$path")) {
		my $each = "$path/$name";
		next if $each =~ $skip;
		my @state = lstat "$base$each" or next;
		my ($uid, $gid) = map {
			my ($kind, $id) = @$_;
			$pass == 1 ? (defined $changes->{$kind}{$id} ? ASIDE + $changes->{$kind}{$id} : $id) : ($id > ASIDE && $id < ASIDE + 1000 ? $id - ASIDE : $id);
		} ['passwd', $state[4]], ['group', $state[5]];
		if ($uid != $state[4] || $gid != $state[5]) {
			run('chown', '-h', "$uid:$gid", '--', "$base$each") or die "$each: its owner cannot be set\n";
			run('chmod', sprintf('%o', $state[2] & 07777), '--', "$base$each") if $state[2] & 06000 && !S_ISLNK($state[2]);
		}
		renumber_tree($base, $each, $skip, $changes, $pass) if S_ISDIR($state[2]);
	}
}

1;
