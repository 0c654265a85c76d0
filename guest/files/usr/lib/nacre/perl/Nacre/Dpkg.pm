package Nacre::Dpkg;

# dpkg's database: stanzas, versions, and whether what is installed fits together.
use strict;
use warnings;
use Exporter 'import';
use Nacre::Files;

our @EXPORT = qw(stanzas packages_of corporate_layers corporate_packages is_installed is_settled info_name info_files compare_versions broken);

# Stanzas of a file of them: a list of { field (lower case) => value, text => as it stands }.
sub stanzas
{
	my ($content) = @_;
	my @found;
	for my $text (split /\n(?:[ \t]*\n)+/, $content // '') {
		my (%fields, $field);
		for my $line (split /\n/, $text) {
			if ($line =~ /^([A-Za-z0-9][A-Za-z0-9-]*):[ \t]*(.*)$/) {
				$field = lc $1;
				$fields{$field} = $2;
			} elsif (defined $field && $line =~ /^[ \t]/) {
				$fields{$field} .= "\n$line";
			}
		}
		next unless %fields;
		$text =~ s/^\n+|\n+$//g;
		$fields{text} = $text;
		push @found, \%fields;
	}
	return @found;
}

# The packages that a status file knows, by name (a foreign architecture's as NAME:ARCH). What has no proper name is left out.
sub packages_of
{
	my ($content) = @_;
	my @all = grep { ($_->{package} // '') =~ /^[a-z0-9][a-z0-9+.-]+$/ && ($_->{architecture} // 'all') =~ /^[a-z0-9][a-z0-9-]*$/ } stanzas($content);
	my ($dpkg) = grep { $_->{package} eq 'dpkg' } @all;
	my $native = $dpkg ? $dpkg->{architecture} : native();
	my %packages;
	for my $package (@all) {
		my $architecture = $package->{architecture} // 'all';
		next unless defined $package->{status} && $package->{status} !~ / not-installed$/;
		$packages{$architecture eq 'all' || $architecture eq $native ? $package->{package} : "$package->{package}:$architecture"} = $package;
	}
	return \%packages;
}

my $native;

sub native
{
	return $native //= do {
		my $arch = `dpkg --print-architecture 2>/dev/null` // '';
		chomp $arch;
		$arch;
	};
}

# Where the corporate layers are mounted, lowest first; the last is what is composed of the databases that several of them have a part in.
sub corporate_layers
{
	my ($volumes) = @_;
	return grep { is_folder($_) } "$volumes/system", (map { "$volumes/$_" } grep { /^app-\d+$/ } entries($volumes)), "$volumes/composed";
}

# What the corporate layers bring, all together.
sub corporate_packages
{
	for my $layer (reverse @_) {
		my $status = content($layer, '/var/lib/dpkg/status');
		return packages_of($status) if defined $status;
	}
	die "the corporate layers have no database of packages\n";
}

sub state_of
{
	return (split / /, $_[0]->{status} // '')[2] // '';
}

sub is_installed
{
	return state_of($_[0]) =~ /^(?:installed|triggers-awaited|triggers-pending)$/;
}

# Is nothing left to be done by dpkg?
sub is_settled
{
	my ($package) = @_;
	return (is_installed($package) || state_of($package) eq 'config-files') && ($package->{status} // '') !~ / reinstreq /;
}

# What the package's files in dpkg's info folder are called.
sub info_name
{
	my ($package) = @_;
	return ($package->{'multi-arch'} // '') eq 'same' ? "$package->{package}:$package->{architecture}" : $package->{package};
}

sub info_files
{
	my ($root, $package) = @_;
	my $name = info_name($package);
	my $folder = below($root, '/var/lib/dpkg/info') // return ();
	return grep { m{^\Q$name\E\.[a-z0-9-]+$} } entries($folder);
}

# As dpkg --compare-versions: below, at or above 0.
sub compare_versions
{
	my ($one, $other) = @_;
	my @one = parts($one);
	my @other = parts($other);
	return $one[0] <=> $other[0] || compare_part($one[1], $other[1]) || compare_part($one[2], $other[2]);
}

sub parts
{
	my ($version) = @_;
	my ($epoch, $rest) = ($version // '') =~ /^(?:(\d+):)?(.*)$/s;
	my ($upstream, $revision) = ($rest // '') =~ /^(.*)-([^-]*)$/s ? ($1, $2) : ($rest // '', '');
	return ($epoch // 0, $upstream, $revision);
}

sub order
{
	my ($character) = @_;
	return 0 if $character eq '';
	return -1 if $character eq '~';
	return $character =~ /[A-Za-z]/ ? ord $character : ord($character) + 256;
}

sub compare_part
{
	my ($one, $other) = @_;
	while ($one ne '' || $other ne '') {
		$one =~ s/^(\D*)//;
		my $text = $1;
		$other =~ s/^(\D*)//;
		my $others = $1;
		for my $at (0 .. (length $text > length $others ? length $text : length $others) - 1) {
			my $by = order($at < length $text ? substr($text, $at, 1) : '') <=> order($at < length $others ? substr($others, $at, 1) : '');
			return $by if $by;
		}
		$one =~ s/^0*(\d*)//;
		my $number = $1;
		$other =~ s/^0*(\d*)//;
		my $others_number = $1;
		my $by = length $number <=> length $others_number || $number cmp $others_number;
		return $by if $by;
	}
	return 0;
}

sub satisfies
{
	my ($have, $relation, $wanted) = @_;
	return 1 unless $relation;
	return 0 unless defined $have;
	my $by = compare_versions($have, $wanted);
	return $relation eq '<<' ? $by < 0 : $relation eq '<=' ? $by <= 0 : $relation eq '=' ? $by == 0 : $relation eq '>=' ? $by >= 0 : $relation eq '>>' ? $by > 0
		: $relation eq '<' ? $by <= 0 : $by >= 0;
}

# NAME[:ARCH] [(RELATION VERSION)] [| …], … as a list of lists of [name, relation, version, as it stands].
sub relations
{
	my ($field) = @_;
	my @all;
	for my $clause (split /,/, $field // '') {
		my @choices;
		for my $choice (split /\|/, $clause) {
			$choice =~ s/^\s+|\s+$//g;
			push @choices, [$1, $2, $3, $choice] if $choice =~ /^([a-z0-9][a-z0-9+.-]*)(?::[a-z0-9-]+)?\s*(?:\(\s*(<<|<=|=|>=|>>|<|>)\s*([^)\s]+)\s*\))?/;
		}
		push @all, \@choices if @choices;
	}
	return @all;
}

# What does not fit in a set of packages: a list of [name, why, names of the packages that the reason is about].
sub broken
{
	my ($packages) = @_;
	my %providers;
	for my $name (sort keys %$packages) {
		my $package = $packages->{$name};
		next unless is_installed($package);
		push @{ $providers{ $package->{package} } }, [$name, $package->{version}];
		push @{ $providers{ $_->[0][0] } }, [$name, $_->[0][2]] for relations($package->{provides});
	}

	my @found;
	for my $name (sort keys %$packages) {
		my $package = $packages->{$name};
		next unless is_installed($package);
		for my $clause (relations(join ',', grep { defined } @$package{qw(pre-depends depends)})) {
			next if grep { my $choice = $_; grep { satisfies($_->[1], @$choice[1, 2]) } @{ $providers{ $choice->[0] } // [] } } @$clause;
			my @about = map { my $choice = $_; map { $_->[0] } @{ $providers{ $choice->[0] } // [] } } @$clause;
			my $words = join ' | ', map { $_->[3] } @$clause;
			my $have = join ', ', map { "$_ " . ($packages->{$_}{version} // '') } @about;
			push @found, [$name, "depends on $words, " . ($have eq '' ? 'which is not there' : "and there is $have"), \@about];
		}
		for my $field (qw(conflicts breaks)) {
			for my $clause (relations($package->{$field})) {
				my $choice = $clause->[0];
				my @against = grep { $packages->{ $_->[0] }{package} ne $package->{package} && satisfies($_->[1], @$choice[1, 2]) } @{ $providers{ $choice->[0] } // [] };
				push @found, [$name, "$field $choice->[3], and there is $_->[0] " . ($packages->{ $_->[0] }{version} // ''), [$_->[0]]] for @against;
			}
		}
	}
	return @found;
}

1;
