extension Topology {
  /// Loops among the slots, each as the addresses on the way, beginning with the smallest; in order. The last emits
  /// to the first.
  ///
  /// Every slot that lies on a loop is in at least one of those listed: the shortest through it. There are never more
  /// loops than slots. O(slots × connections) at worst; slots on no loop cost O(1) each.
  ///
  /// A way through a topic that is not Grape's, written by one slot and read by another, counts like a connection.
  public var cycles: [[EventAddress]] {
    CycleFinder(edges.filter { !$0.isMissing } + Self.edges(through: topicEdges())).cycles()
  }
}

/// Strongly connected components (Tarjan 1972), without recursion, then a shortest loop through each member.
struct CycleFinder {
  private var nodes: [EventAddress]
  private var successors: [[Int]]

  init(_ edges: [Topology.Edge]) {
    nodes = Set(edges.flatMap { [$0.from, $0.to] }).sorted()
    var numbers: [EventAddress: Int] = [:]
    for (number, node) in nodes.enumerated() { numbers[node] = number }
    var sets = [Set<Int>](repeating: [], count: nodes.count)
    for edge in edges {
      guard let from = numbers[edge.from], let to = numbers[edge.to] else { continue }
      sets[from].insert(to)
    }
    successors = sets.map { $0.sorted() }
  }

  func cycles() -> [[EventAddress]] {
    let component = components()
    var found: Set<[Int]> = []
    for node in nodes.indices {
      guard let cycle = shortestCycle(through: node, component: component) else { continue }
      guard let smallest = cycle.indices.min(by: { cycle[$0] < cycle[$1] }) else { continue }
      found.insert(Array(cycle[smallest...] + cycle[..<smallest]))
    }
    return found.sorted { $0.lexicographicallyPrecedes($1) }.map { $0.map { nodes[$0] } }
  }

  /// The number of the component of each node.
  private func components() -> [Int] {
    var component = [Int](repeating: -1, count: nodes.count)
    var order = [Int](repeating: -1, count: nodes.count)
    var low = [Int](repeating: 0, count: nodes.count)
    var onStack = [Bool](repeating: false, count: nodes.count)
    var stack: [Int] = []
    var counter = 0
    var componentCount = 0
    var path: [(node: Int, next: Int)] = []

    for root in nodes.indices where order[root] < 0 {
      path.append((root, 0))
      while let (node, next) = path.last {
        if next == 0 {
          order[node] = counter
          low[node] = counter
          counter += 1
          stack.append(node)
          onStack[node] = true
        }
        if next < successors[node].count {
          path[path.count - 1].next = next + 1
          let successor = successors[node][next]
          if order[successor] < 0 {
            path.append((successor, 0))
          } else if onStack[successor] {
            low[node] = min(low[node], order[successor])
          }
          continue
        }
        path.removeLast()
        if let parent = path.last?.node { low[parent] = min(low[parent], low[node]) }
        if low[node] == order[node] {
          while let member = stack.popLast() {
            onStack[member] = false
            component[member] = componentCount
            if member == node { break }
          }
          componentCount += 1
        }
      }
    }
    return component
  }

  /// A shortest way from a node back to itself, by breadth-first search within its component.
  private func shortestCycle(through start: Int, component: [Int]) -> [Int]? {
    var cameFrom: [Int: Int] = [:]
    var queue = [start]
    var head = 0
    while head < queue.count {
      let node = queue[head]
      head += 1
      for successor in successors[node] where component[successor] == component[start] {
        if successor == start {
          var cycle = [node]
          while let last = cycle.last, last != start, let previous = cameFrom[last] { cycle.append(previous) }
          return cycle.reversed()
        }
        if cameFrom[successor] == nil {
          cameFrom[successor] = node
          queue.append(successor)
        }
      }
    }
    return nil
  }
}
