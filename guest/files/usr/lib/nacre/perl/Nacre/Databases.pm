package Nacre::Databases;

# What packages share in one file: accounts, alternatives, diversions, triggers, apt's marks, debconf's answers. Capturing takes from each what
# the corporate layers do not have; merging puts it on top of what other corporate layers have.
use strict;
use warnings;
use Exporter 'import';
use Nacre::Files;
use Nacre::Dpkg;

our @EXPORT = qw(capture_databases merge_accounts merge_databases);

use constant ACCOUNT_FILES => qw(passwd group shadow gshadow subuid subgid);

# Ids that packages' accounts have. Never 0, and never a person's: those are settings.
sub is_system_id
{
	return ($_[0] // '') =~ /^\d{1,3}$/ && $_[0] > 0;
}

# A file of lines with ':', by its first field; the first of two wins.
sub table
{
	my %rows;
	for my $content (@_) {
		for my $line (split /\n/, $content // '') {
			my @fields = split /:/, $line, -1;
			$rows{ $fields[0] } //= \@fields if @fields > 1 && $fields[0] =~ /^[A-Za-z_][A-Za-z0-9_.-]*\$?$/ && $line !~ /[\0\r]/;
		}
	}
	return \%rows;
}

sub tables
{
	my (@roots) = @_;
	return map { my $name = $_; $name => table(map { content($_, "/etc/$name") } reverse @roots) } ACCOUNT_FILES;
}

sub rows
{
	my ($table, @names) = @_;
	return join '', map { join(':', @{ $table->{$_} }) . "\n" } grep { $table->{$_} } @names;
}

# What system $root has over the corporate $layers, as name => content. $users (names of packages) are the user's.
sub capture_databases
{
	my ($root, $layers, $users) = @_;
	my %delta;
	my %have = tables($root);
	my %corporate = tables(@$layers);
	my @accounts = sort grep { !$corporate{passwd}{$_} && is_system_id($have{passwd}{$_}[2]) } keys %{ $have{passwd} };
	my @groups = sort grep { !$corporate{group}{$_} && is_system_id($have{group}{$_}[2]) } keys %{ $have{group} };
	$delta{$_} = rows($have{$_}, @accounts) for qw(passwd shadow subuid subgid);
	$delta{$_} = rows($have{$_}, @groups) for qw(group gshadow);
	my %group_of = map { $have{group}{$_}[2] => $_ } reverse sort keys %{ $have{group} };
	$delta{primary} = join '', map { "$_:$group_of{ $have{passwd}{$_}[3] }\n" } grep { $group_of{ $have{passwd}{$_}[3] // '' } } @accounts;
	my %is_account = map { $_ => 1 } @accounts;
	for my $group (sort keys %{ $have{group} }) {
		$delta{members} .= "$group:$_\n" for grep { $is_account{$_} } split /,/, $have{group}{$group}[3] // '';
	}
	$delta{ids} = join '', map { my $kind = $_; map { "$kind:$_:$have{$kind}{$_}[2]\n" } grep { is_system_id($have{$kind}{$_}[2]) } sort keys %{ $have{$kind} } } qw(passwd group);

	for my $name (grep { /^[A-Za-z0-9][A-Za-z0-9+._-]*$/ } entries("$root/var/lib/dpkg/alternatives")) {
		my $text = content($root, "/var/lib/dpkg/alternatives/$name") // next;
		my ($theirs) = grep { defined } map { content($_, "/var/lib/dpkg/alternatives/$name") } reverse @$layers;
		next if defined $theirs && $theirs eq $text;
		$delta{"alternatives/$name"} = $text;
		$delta{targets} .= "$name " . (readlink("$root/etc/alternatives/$name") // '') . "\n";
	}

	my %triggers;
	my @trigger_files = grep { /^[A-Za-z0-9][A-Za-z0-9+._-]*$/ && $_ ne 'Lock' && $_ ne 'Unincorp' } entries("$root/var/lib/dpkg/triggers");
	for my $name (@trigger_files) {
		my @own = grep { $users->{ trigger_package($_) } } lines($root, "/var/lib/dpkg/triggers/$name");
		$delta{"triggers/$name"} = join '', map { "$_\n" } @own if @own;
	}

	my @own = without([triples($root)], [map { triples($_) } @$layers]);
	$delta{diversions} = join '', @own;
	$delta{statoverride} = join '', map { "$_\n" } without([lines($root, '/var/lib/dpkg/statoverride')], [map { lines($_, '/var/lib/dpkg/statoverride') } @$layers]);
	$delta{'extended_states'} = join "\n", map { "$_->{text}\n" } grep { $users->{ $_->{package} // '' } } stanzas(content($root, '/var/lib/apt/extended_states'));
	for my $name (qw(config.dat templates.dat passwords.dat)) {
		my %known = map { ($_->{name} // '') => 1 } map { stanzas(content($_, "/var/cache/debconf/$name")) } @$layers;
		$delta{"debconf-$name"} = join "\n", map { "$_->{text}\n" } grep { defined $_->{name} && !$known{ $_->{name} } } stanzas(content($root, "/var/cache/debconf/$name"));
	}
	for my $name (qw(hashfile registry)) {
		$delta{"ucf-$name"} = join '', map { "$_\n" } without([lines($root, "/var/lib/ucf/$name")], [map { lines($_, "/var/lib/ucf/$name") } @$layers]);
	}
	return { map { $_ => $delta{$_} } grep { ($delta{$_} // '') ne '' } keys %delta };
}

sub without
{
	my ($all, $known) = @_;
	my %known = map { $_ => 1 } @$known;
	return grep { !$known{$_} } @$all;
}

sub triples
{
	my ($root) = @_;
	my @lines = lines($root, '/var/lib/dpkg/diversions');
	my @found;
	while (my ($from, $to, $by) = splice @lines, 0, 3) {
		push @found, "$from\n$to\n$by\n" if defined $by && $from =~ m{^/} && $to =~ m{^/};
	}
	return @found;
}

# The package that a line of a trigger's file is about.
sub trigger_package
{
	my ($line) = @_;
	my ($package) = $line =~ m{([^\s/]+)(?:/\w+)?$};
	$package //= '';
	$package =~ s/:.*//;
	return $package;
}

# Accounts of the corporate layers with those captured. An id that a corporate account has now is given up by the user's. Returns what to write
# (empty where nothing of the user's is left), the ids by name, and the changes of ids: kind => { old => new }.
sub merge_accounts
{
	my ($layers, $delta) = @_;
	my %final = tables(@$layers);
	my %own = map { $_ => table($delta->{$_}) } ACCOUNT_FILES;
	my $primary = table($delta->{primary});
	my %added;
	for my $kind (qw(group passwd)) {
		my %taken = map { ($_->[2] // '') => 1 } values %{ $final{$kind} };
		my @names = sort { $own{$kind}{$a}[2] <=> $own{$kind}{$b}[2] || $a cmp $b }
			grep { !$final{$kind}{$_} && is_system_id($own{$kind}{$_}[2]) } keys %{ $own{$kind} };
		my %reserved = map { $own{$kind}{$_}[2] => 1 } @names;
		for my $name (@names) {
			my @row = @{ $own{$kind}{$name} };
			if ($taken{ $row[2] }) {
				($row[2]) = grep { !$taken{$_} && !$reserved{$_} } 900 .. 979, 300 .. 899;
				defined $row[2] or die "no id is left for the account $name\n";
			}
			$taken{ $row[2] } = 1;
			if ($kind eq 'group') {
				@row = (@row[0 .. 2], '');
			} else {
				next unless @row == 7;
				my $group = $final{group}{ $primary->{$name} ? $primary->{$name}[1] : '' };
				$row[3] = $group->[2] if $group;
				next unless is_system_id($row[3]) || $row[3] eq '65534';
			}
			$row[1] = 'x';
			$final{$kind}{$name} = \@row;
			$added{$kind}{$name} = 1;
		}
	}
	for my $name (keys %{ $added{passwd} }) {
		my $row = $own{shadow}{$name} ? [@{ $own{shadow}{$name} }] : [$name, '!', 1, 0, 99999, 7, '', '', ''];
		# No account of a package lets anybody in with a password.
		$row->[1] = '!' unless $row->[1] =~ /^[!*]/;
		$final{shadow}{$name} = $row;
		$final{$_}{$name} //= $own{$_}{$name} for grep { $own{$_}{$name} } qw(subuid subgid);
	}
	$final{gshadow}{$_} = [$_, '!', '', ''] for keys %{ $added{group} };
	for my $line (split /\n/, $delta->{members} // '') {
		my ($group, $member) = split /:/, $line;
		next unless defined $member && $added{passwd}{$member} && $final{group}{$group};
		for my $row (grep { $_ } $final{group}{$group}, $final{gshadow}{$group}) {
			$row->[3] = join ',', grep { $_ ne '' } split(/,/, $row->[3] // ''), $member unless grep { $_ eq $member } split /,/, $row->[3] // '';
		}
	}

	my (%ids, %changes);
	for my $kind (qw(passwd group)) {
		$ids{$kind}{$_} = $final{$kind}{$_}[2] for keys %{ $final{$kind} };
	}
	for my $line (split /\n/, $delta->{ids} // '') {
		my ($kind, $name, $id) = split /:/, $line;
		next unless defined $id && ($kind eq 'passwd' || $kind eq 'group') && is_system_id($id) && defined $ids{$kind}{$name} && is_system_id($ids{$kind}{$name});
		$changes{$kind}{$id} = $ids{$kind}{$name} if $ids{$kind}{$name} != $id;
	}
	my %files;
	if ($added{passwd} || $added{group}) {
		$files{$_} = join '', map { join(':', @{ $final{$_->[0]}{$_->[1]} }) . "\n" } in_order($_, \%final) for ACCOUNT_FILES;
	}
	my $text = join '', map { my $kind = $_; map { "$kind:$_:$ids{$kind}{$_}\n" } grep { is_system_id($ids{$kind}{$_}) } sort keys %{ $ids{$kind} } } qw(passwd group);
	return (\%files, $text, \%changes, $added{passwd} // {});
}

sub in_order
{
	my ($kind, $final) = @_;
	my $numbers = $kind =~ /^g/ ? $final->{group} : $final->{passwd};
	return map { [$kind, $_] } sort { (($numbers->{$a} // [])->[2] // 0) <=> (($numbers->{$b} // [])->[2] // 0) || $a cmp $b } keys %{ $final->{$kind} };
}

# The databases of corporate $layers with $delta on top: files to be written ([path, content, mode, uid, gid]), and links (path => target, '' for
# none). $of: 'user' or 'corporate' by name of package. $exists: code that says whether a path exists in the new system. $accounts: the names
# there are, by kind.
sub merge_databases
{
	my ($layers, $delta, $of, $exists, $accounts) = @_;
	my @roots = @$layers;
	my @files;
	my $write = sub {
		my ($path, $content, $mode) = @_;
		my ($found) = grep { @$_ } map { [lstat "$_$path"] } reverse @$layers;
		push @files, [$path, $content, $found ? $found->[2] & 07777 : $mode // 0644, $found ? @$found[4, 5] : (0, 0)];
	};
	my %seen;
	my @corporate = grep { !$seen{$_}++ } map { triples($_) } @$layers;
	my %names = map { my ($from, $to) = split /\n/; ($from => 1, $to => 1) } @corporate;
	my @own;
	{
		my @lines = split /\n/, $delta->{diversions} // '';
		while (my ($from, $to, $by) = splice @lines, 0, 3) {
			next unless defined $by && $from =~ m{^/} && $to =~ m{^/} && !$names{$from} && !$names{$to};
			next unless $by eq ':' || ($of->{$by} // '') eq 'user';
			push @own, "$from\n$to\n$by\n";
		}
	}
	$write->('/var/lib/dpkg/diversions', join('', @corporate, @own)) if @own;

	my %overridden = map { (split / /, $_, 4)[3] => $_ } grep { / .* .* / } map { lines($_, '/var/lib/dpkg/statoverride') } @roots;
	my $added = 0;
	for my $line (split /\n/, $delta->{statoverride} // '') {
		my ($user, $group, $mode, $path) = split / /, $line, 4;
		next unless defined $path && $path =~ m{^/} && $mode =~ /^[0-7]{3,5}$/ && !$overridden{$path} && $exists->($path);
		# dpkg refuses to work with an override for an account that does not exist.
		next if grep { $_->[0] !~ /^#/ && !$accounts->{ $_->[1] }{ $_->[0] } } [$user, 'passwd'], [$group, 'group'];
		$overridden{$path} = $line;
		$added = 1;
	}
	$write->('/var/lib/dpkg/statoverride', join '', map { "$overridden{$_}\n" } sort keys %overridden) if $added;

	my %triggers = map { $_ => 1 } grep { /^[A-Za-z0-9][A-Za-z0-9+._-]*$/ && $_ ne 'Lock' && $_ ne 'Unincorp' }
		(map { entries("$_/var/lib/dpkg/triggers") } @$layers), map { m{^triggers/(.*)} ? $1 : () } keys %$delta;
	for my $name (sort keys %triggers) {
		my %kept;
		my @theirs = grep { !$kept{$_}++ } map { lines($_, "/var/lib/dpkg/triggers/$name") } @roots;
		my @wanted = ((grep { ($of->{ trigger_package($_) } // '') eq 'corporate' } @theirs), grep { ($of->{ trigger_package($_) } // '') eq 'user' } split /\n/, $delta->{"triggers/$name"} // '');
		my $text = join '', map { "$_\n" } @wanted;
		$write->("/var/lib/dpkg/triggers/$name", $text) if $text ne join('', map { "$_\n" } @theirs);
	}

	my %marks = map { (($_->{package} // '') . ':' . ($_->{architecture} // '')) => $_->{text} } map { stanzas(content($_, '/var/lib/apt/extended_states')) } @roots;
	my @marks = grep { ($of->{ $_->{package} // '' } // '') eq 'user' } stanzas($delta->{extended_states});
	$marks{"$_->{package}:" . ($_->{architecture} // '')} = $_->{text} for @marks;
	$write->('/var/lib/apt/extended_states', join "\n", map { "$marks{$_}\n" } sort keys %marks) if @marks;

	for my $name (qw(config.dat templates.dat passwords.dat)) {
		my %answers = map { ($_->{name} // '') => $_->{text} } map { stanzas(content($_, "/var/cache/debconf/$name")) } @roots;
		my @answers = grep { defined $_->{name} && !$answers{ $_->{name} } } stanzas($delta->{"debconf-$name"});
		$answers{ $_->{name} } = $_->{text} for @answers;
		$write->("/var/cache/debconf/$name", join("\n", map { "$answers{$_}\n" } sort grep { $_ ne '' } keys %answers), $name eq 'templates.dat' ? 0644 : 0600) if @answers;
	}
	for my $name (qw(hashfile registry)) {
		my %kept;
		my @all = grep { !$kept{$_}++ } (map { lines($_, "/var/lib/ucf/$name") } @roots), split /\n/, $delta->{"ucf-$name"} // '';
		$write->("/var/lib/ucf/$name", join '', map { "$_\n" } @all) if ($delta->{"ucf-$name"} // '') ne '';
	}

	my %targets = map { split / /, $_, 2 } grep { / / } split /\n/, $delta->{targets} // '';
	my %links;
	my %names_of_alternatives = map { $_ => 1 } map { m{^alternatives/([A-Za-z0-9][A-Za-z0-9+._-]*)$} ? $1 : () } keys %$delta;
	for my $name (sort keys %names_of_alternatives) {
		my @texts = grep { defined } map { content($_, "/var/lib/dpkg/alternatives/$name") } @roots;
		my $merged = merge_alternative($delta->{"alternatives/$name"}, $targets{$name}, $exists, @texts) // next;
		next if @texts && $merged->{text} eq $texts[-1];
		$write->("/var/lib/dpkg/alternatives/$name", $merged->{text});
		my %wanted = ($name => [$merged->{link}, $merged->{choice}], %{ $merged->{slaves} });
		for my $each (keys %wanted) {
			my ($link, $target) = @{ $wanted{$each} };
			$links{"/etc/alternatives/$each"} = $target;
			$links{$link} = $target eq '' ? '' : "/etc/alternatives/$each";
		}
	}
	return (\@files, \%links);
}

# One file of /var/lib/dpkg/alternatives.
sub alternative
{
	my ($text) = @_;
	my @lines = split /\n/, $text // '', -1;
	my %found = (status => shift(@lines) // '', link => shift(@lines) // '', slaves => [], choices => {});
	return undef unless $found{status} =~ /^(?:auto|manual)$/ && $found{link} =~ m{^/};
	while (@lines && $lines[0] ne '') {
		my ($name, $link) = splice @lines, 0, 2;
		return undef unless $name =~ /^[A-Za-z0-9][A-Za-z0-9+._-]*$/ && ($link // '') =~ m{^/};
		push @{ $found{slaves} }, [$name, $link];
	}
	shift @lines;
	while (@lines && $lines[0] ne '') {
		my ($path, $priority, @files) = splice @lines, 0, 2 + @{ $found{slaves} };
		return undef unless $path =~ m{^/} && ($priority // '') =~ /^-?\d+$/ && @files == @{ $found{slaves} };
		my %files;
		@files{ map { $_->[0] } @{ $found{slaves} } } = @files;
		$found{choices}{$path} = { priority => $priority, files => \%files };
	}
	return \%found;
}

# As update-alternatives would have it: the choices of all that exist, the user's own choice where it is still one, else the best.
sub merge_alternative
{
	my ($own, $target, $exists, @corporate) = @_;
	my @all = grep { $_ } map { alternative($_) } @corporate;
	my $user = alternative($own);
	push @all, $user if $user;
	return undef unless @all;
	my (%slaves, %choices);
	for my $each (@all) {
		$slaves{ $_->[0] } //= $_->[1] for @{ $each->{slaves} };
		$choices{$_} //= $each->{choices}{$_} for keys %{ $each->{choices} };
	}
	delete @choices{ grep { !$exists->($_) } keys %choices };
	my ($best) = sort { $choices{$b}{priority} <=> $choices{$a}{priority} || $a cmp $b } keys %choices;
	return undef unless defined $best;
	my $status = 'auto';
	my $choice = $best;
	my ($manual) = grep { $_->{status} eq 'manual' } reverse @all;
	if ($manual && $manual == ($user // 0) && defined $target && $choices{$target}) {
		($status, $choice) = ('manual', $target);
	}
	my @names = sort keys %slaves;
	my $text = "$status\n$all[0]{link}\n" . join('', map { "$_\n$slaves{$_}\n" } @names) . "\n";
	for my $path (sort keys %choices) {
		$text .= join "\n", $path, $choices{$path}{priority}, (map { $choices{$path}{files}{$_} // '' } @names), '';
	}
	my %set = map { $_ => [$slaves{$_}, $exists->($choices{$choice}{files}{$_} // '') ? $choices{$choice}{files}{$_} : ''] } @names;
	return { text => "$text\n", link => $all[0]{link}, choice => $choice, slaves => \%set };
}

1;
