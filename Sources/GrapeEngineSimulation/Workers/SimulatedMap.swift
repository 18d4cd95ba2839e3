import Grape
import GrapeState
import GrapeWire

/// A partition's state as a worker sees it in its memory map: the image of the moment in which it looks.
final class SimulatedMap: StateBase {
  private let stores: SimulatedStores
  private let name: SimulatedStores.Name
  private var view: SimulatedView?

  init(_ stores: SimulatedStores, app: String, partition: Int32) {
    self.stores = stores
    name = .init(app: app, partition: partition)
  }

  func begin(telling: Bool) throws(StateError) -> Int64 {
    view = stores.map(name).map { SimulatedView(image: $0) }
    return view?.image.position.processed ?? 0
  }

  func end() { view = nil }

  func entry(_ key: UnsafeRawBufferPointer) throws(StateError) -> StateFound? {
    guard let view, let entry = view.image.entries[ByteSlice(copying: key)] else { return nil }
    return StateFound(entry: entry.unsafeBytes, owner: entry)
  }

  func page(_ wanted: StatePageRequest) throws(StateError) -> StatePage {
    var page = StatePage()
    guard let view else { return page }
    let keys = view.image.entries.keys.filter { wanted.range.contains($0) }.sorted()
    for key in wanted.descending ? keys.reversed() : keys {
      guard let entry = view.image.entries[key] else { continue }
      if !wanted.tags.isEmpty {
        let isWanted = try StateEntry(entry.unsafeBytes).hasTags(wanted.tags)
        if !isWanted { continue }
      }
      guard page.entries.count < wanted.limit else {
        page.hasMore = true
        break
      }
      page.entries.append((key.unsafeBytes, entry.unsafeBytes))
      page.owners += [key, entry]
    }
    return page
  }
}
