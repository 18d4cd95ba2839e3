/// A file without a name: what programs see, what is on the disk, and what lies between the two.
final class SimulatedInode {
  /// A change that is not on the disk yet.
  private enum Change {
    /// `source`: place in `copies`; -1: zeros.
    case write(offset: Int, count: Int, source: Int)
    case resize(Int)
  }

  /// What the operating system shows.
  let current = SimulatedImage()
  /// What a loss of power leaves for sure.
  private let durable = SimulatedImage()
  private var pending: [Change] = []
  /// Bytes of pending writes.
  private let copies = SimulatedImage()

  /// Sectors are written whole or not at all, unless a tear says otherwise.
  private static let sector = 512

  func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
    guard let base = bytes.baseAddress, bytes.count > 0 else { return }
    var source = -1
    if bytes.count < 4_096 || !bytes.isZero {
      source = copies.size
      copies.write(base, count: bytes.count, at: source)
    }
    pending.append(.write(offset: offset, count: bytes.count, source: source))
    current.write(source < 0 ? nil : base, count: bytes.count, at: offset)
  }

  func resize(to size: Int) {
    pending.append(.resize(size))
    current.resize(to: size)
  }

  func synchronize() {
    for change in pending { apply(change, to: durable) }
    forget()
  }

  /// A synchronisation that fails: some of what was pending gets to the disk, some never will although it is still to be seen, and the
  /// operating system tells nobody a second time.
  /// `evicting`: what will never get there is not to be seen any more either.
  func failSynchronization(evicting: Bool, _ random: inout SimulationRandom) {
    for change in pending {
      if case .write = change, random.chance(1, in: 2) { continue }
      apply(change, to: durable)
    }
    forget()
    if evicting { current.become(durable) }
  }

  /// The power goes: of what was pending some survives, out of order, and some of that in part.
  func losePower(_ weather: PowerLoss, _ random: inout SimulationRandom) {
    if !pending.isEmpty {
      var first = 0
      while first < pending.count {
        // Writes change places with each other, not with changes of the size.
        var last = first
        while last < pending.count, case .write = pending[last] { last += 1 }
        if last - first > 1 && weather.reorders { pending[first..<last].shuffle(using: &random) }
        for change in pending[first..<last] { survive(change, weather, &random) }
        if last < pending.count, random.chance(weather.survival, in: 100) { apply(pending[last], to: durable) }
        first = last + 1
      }
      forget()
    }
    current.become(durable)
  }

  func flip(bit: Int, at offset: Int) {
    if offset < current.size { current.flip(bit: bit, at: offset) }
    if offset < durable.size { durable.flip(bit: bit, at: offset) }
  }

  private func survive(_ change: Change, _ weather: PowerLoss, _ random: inout SimulationRandom) {
    guard case .write(let offset, let count, let source) = change else { return }
    if random.chance(weather.tearing, in: 100) {
      // Torn at any byte: what is before it, or what is behind it.
      let cut = random.below(count + 1)
      if random.chance(3, in: 4) {
        apply(.write(offset: offset, count: cut, source: source), to: durable)
      } else {
        let rest = source < 0 ? source : source + cut
        apply(.write(offset: offset + cut, count: count - cut, source: rest), to: durable)
      }
    } else if weather.bySector && source >= 0 {
      var start = 0
      while start < count {
        let end = min(count, (offset + start) / Self.sector * Self.sector + Self.sector - offset)
        if random.chance(weather.survival, in: 100) {
          apply(.write(offset: offset + start, count: end - start, source: source + start), to: durable)
        }
        start = end
      }
    } else if random.chance(weather.survival, in: 100) {
      apply(change, to: durable)
    }
  }

  private func apply(_ change: Change, to image: SimulatedImage) {
    switch change {
    case .write(let offset, let count, let source):
      if source < 0 || count == 0 {
        image.write(nil, count: count, at: offset)
      } else {
        image.write(copies.address(of: source), count: count, at: offset)
      }
    case .resize(let size): image.resize(to: size)
    }
  }

  private func forget() {
    pending.removeAll(keepingCapacity: true)
    copies.resize(to: 0)
  }
}

/// What a loss of power does to writes that were not synchronised.
struct PowerLoss {
  /// Of 100 writes so many survive.
  var survival: Int
  /// Of 100 writes so many are torn at some byte.
  var tearing: Int
  /// Survival is decided for each sector, not for each write.
  var bySector: Bool
  var reorders: Bool

  init(_ random: inout SimulationRandom) {
    survival = random.pick([0, 10, 50, 50, 90, 100])
    tearing = random.pick([0, 0, 20, 60])
    bySector = random.chance(1, in: 3)
    reorders = random.chance(1, in: 2)
  }
}

extension UnsafeRawBufferPointer {
  var isZero: Bool {
    var place = 0
    while place + 32 <= count {
      let first = loadUnaligned(fromByteOffset: place, as: SIMD4<UInt64>.self)
      if first != .zero { return false }
      place += 32
    }
    return self[place...].allSatisfy { $0 == 0 }
  }
}
