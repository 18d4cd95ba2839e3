import GrapeStore
import Testing

@testable import GrapeEngine

@Suite("Views of state that are held for long")
struct LongViewsTests {
  static let limit = LongViews.Limit(time: 30, growth: 100, interval: 2)
  let view = StaleView(process: 7, moment: 3)

  @Test("one that is held for too long while the store grows is told, once")
  func told() {
    var views = LongViews()
    #expect(views.look([view], size: 200, now: 0, limit: Self.limit).isEmpty)
    #expect(views.look([view], size: 400, now: 29, limit: Self.limit).isEmpty)
    let found = views.look([view], size: 400, now: 31, limit: Self.limit)
    #expect(found.map(\.view) == [view] && found.map(\.held) == [31])
    #expect(views.look([view], size: 900, now: 99, limit: Self.limit).isEmpty)
  }

  @Test("one that does no harm, or was let go of in between, is not told")
  func harmless() {
    var views = LongViews()
    #expect(views.look([view], size: 200, now: 0, limit: Self.limit).isEmpty)
    // The store hardly grows.
    #expect(views.look([view], size: 250, now: 50, limit: Self.limit).isEmpty)
    #expect(views.look([], size: 250, now: 60, limit: Self.limit).isEmpty)
    #expect(views.look([view], size: 250, now: 70, limit: Self.limit).isEmpty)
    #expect(views.look([view], size: 900, now: 99, limit: Self.limit).isEmpty)
    // The same process, another moment.
    #expect(views.look([StaleView(process: 7, moment: 4)], size: 9000, now: 101, limit: Self.limit).isEmpty)
  }

  @Test("growth is measured against the store's size")
  func large() {
    var views = LongViews()
    _ = views.look([view], size: 4000, now: 0, limit: Self.limit)
    #expect(views.look([view], size: 4900, now: 40, limit: Self.limit).isEmpty)
    #expect(views.look([view], size: 5000, now: 42, limit: Self.limit).count == 1)
  }

  @Test("the store is not looked at all the time")
  func interval() {
    var views = LongViews()
    #expect(views.isDue(0, Self.limit))
    _ = views.look([], size: 1, now: 0, limit: Self.limit)
    #expect(!views.isDue(1, Self.limit))
    #expect(views.isDue(2, Self.limit))
  }
}
