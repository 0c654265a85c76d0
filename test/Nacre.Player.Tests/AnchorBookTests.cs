using Nacre.Contracts;
using Nacre.Player.Anchors;
using Nacre.Volumes;
using Xunit;

namespace Nacre.Player.Tests;

/// <summary>Which state of a layer counts as the newest, from what this device kept and what the server says.</summary>
public sealed class AnchorBookTests
{
    private static readonly Guid Volume = Guid.Parse("11111111-2222-3333-4444-555555555555");
    private static readonly Guid OtherVolume = Guid.Parse("99999999-8888-7777-6666-555555555555");

    [Fact]
    public void The_newest_of_what_is_kept_and_what_the_lease_says_counts()
    {
        Assert.Null(Book(null, null).Newest("data"));
        Assert.Equal(At(5), Book(At(5), null).Newest("data"));
        Assert.Equal(At(7), Book(null, At(7)).Newest("data"));
        foreach (var isNow in new[] { true, false })
        {
            Assert.Equal(At(7), Book(At(5), At(7), isNow).Newest("data"));
            Assert.Equal(At(7), Book(At(7), At(5), isNow).Newest("data"));
            Assert.Equal(At(1, epoch: 2), Book(At(9), At(1, epoch: 2), isNow).Newest("data"));
            Assert.Equal(At(5, volume: OtherVolume), Book(At(9), At(5, volume: OtherVolume), isNow).Newest("data"));
        }
    }

    [Fact]
    public void An_accepted_state_counts_over_a_kept_lease_and_not_over_a_server_that_knows_better()
    {
        Assert.Equal(At(1, epoch: 2), Book(At(1, epoch: 2), At(9), isNow: false).Newest("data"));
        Assert.Equal(ErrorCatalogue.VolumeOutdated, Assert.Throws<NacreException>(() => Book(At(1, epoch: 2), At(9), isNow: true).Newest("data")).Kind);
    }

    [Fact]
    public void A_layer_that_grew_keeps_its_epoch_and_what_is_not_heard_of_yet()
    {
        var book = new AnchorBook([new KeptAnchor(At(4, epoch: 2), At(9))]);
        book.Hear([At(9)], isNow: false);
        book.Opened("data", new VolumeAnchor(Volume, 6));
        Assert.Equal(new KeptAnchor(At(6, epoch: 2), At(9)), Assert.Single(book.Kept));
        book.Grown("data", new VolumeAnchor(Volume, 8));
        book.Grown("data", new VolumeAnchor(Volume, 7));
        Assert.Equal(new StatedAnchor(At(8, epoch: 2), At(9)), Assert.Single(book.Statements));

        // The server has heard of it.
        book.Answered(book.Statements, [At(8, epoch: 2)]);
        Assert.Equal(new KeptAnchor(At(8, epoch: 2)), Assert.Single(book.Kept));
        book = new AnchorBook([new KeptAnchor(At(8, epoch: 2), At(9))]);
        book.Hear([At(8, epoch: 2)], isNow: true);
        book.Opened("data", new VolumeAnchor(Volume, 8));
        Assert.Equal(new KeptAnchor(At(8, epoch: 2)), Assert.Single(book.Kept));
    }

    [Fact]
    public void Accepting_begins_an_epoch_and_names_what_it_replaces()
    {
        var online = Book(At(5), At(9), isNow: true);
        online.Accepted("data", new VolumeAnchor(OtherVolume, 1));
        Assert.Equal(new KeptAnchor(At(1, epoch: 2, OtherVolume), At(9)), Assert.Single(online.Kept));

        var offline = Book(At(9), At(5), isNow: false);
        offline.Accepted("data", new VolumeAnchor(Volume, 3));
        Assert.Equal(new KeptAnchor(At(3, epoch: 2), At(9)), Assert.Single(offline.Kept));

        // A second time before the server heard of the first: it still knows what the first replaced.
        offline = new AnchorBook(offline.Kept);
        offline.Hear([At(5)], isNow: false);
        offline.Accepted("data", new VolumeAnchor(Volume, 2));
        Assert.Equal(new KeptAnchor(At(2, epoch: 3), At(9)), Assert.Single(offline.Kept));

        var unknown = Book(null, null, isNow: false);
        unknown.Accepted("data", new VolumeAnchor(Volume, 2));
        Assert.Equal(new KeptAnchor(At(2)), Assert.Single(unknown.Kept));
    }

    [Fact]
    public void A_newer_state_that_the_server_tells_of_while_an_older_copy_runs_is_remembered_until_it_is_accepted()
    {
        var book = Book(At(5), null, isNow: false);
        book.Opened("data", new VolumeAnchor(Volume, 5));
        Assert.Null(book.Missed);
        book.Answered(book.Statements, [At(9)]);
        Assert.Contains("position 9", book.Missed, StringComparison.Ordinal);

        // Grown past what it lacks, it is still not what the server knows, and is not stated as if it were.
        book.Grown("data", new VolumeAnchor(Volume, 20));
        Assert.Empty(book.Statements);
        var next = new AnchorBook(book.Kept);
        next.Hear([At(9)], isNow: true);
        Assert.Equal(ErrorCatalogue.VolumeOutdated, Assert.Throws<NacreException>(() => next.Newest("data")).Kind);
        next.Accepted("data", new VolumeAnchor(Volume, 20));
        Assert.Equal(new StatedAnchor(At(20, epoch: 2), At(9)), Assert.Single(next.Statements));
        Assert.Null(next.Missed);
    }

    private static LayerAnchor At(long position, int epoch = 1, Guid? volume = null) => new("data", volume ?? Volume, epoch, position);

    private static AnchorBook Book(LayerAnchor? kept, LayerAnchor? told, bool isNow = true)
    {
        var book = new AnchorBook(kept is null ? [] : [new KeptAnchor(kept)]);
        book.Hear(told is null ? [] : [told], isNow);
        return book;
    }
}
