extension Manifest {
  /// Everything that is wrong with the manifest taken alone, in the order of its fields; empty if it is sound. What
  /// it says about other applications is checked by `Topology`.
  public func problems() -> [FieldProblem] {
    var problems: [FieldProblem] = []
    runtimeProblems(&problems)
    if !Self.partitionBounds.contains(partitions) {
      problems.append(
        FieldProblem(
          FieldPath().key("partitions"),
          "\(partitions) is out of range: use \(Self.partitionBounds.lowerBound) to \(Self.partitionBounds.upperBound)")
      )
    }
    slotProblems(&problems)
    signalProblems(&problems)
    sourceProblems(&problems)
    for problem in profile.problems() {
      problems.append(FieldProblem(FieldPath([.key("profile")] + problem.path.steps), problem.message))
    }
    return problems
  }

  /// What is allowed but most likely not meant, a sentence each.
  public func warnings() -> [String] {
    let emitted = Set(slots.flatMap { $0.emits + $0.optional })
    return signals.filter { !emitted.contains(.local($0.name)) }.map {
      "signals.\($0.name): no slot of \(name) emits it; name it in the \"emits\" of the slots that do"
    }
  }

  private func runtimeProblems(_ problems: inout [FieldProblem]) {
    switch runtime {
    case .python(let entry):
      let path = FieldPath().key("entry")
      if let message = PackagePath.problem(entry) {
        problems.append(FieldProblem(path, message))
      } else if !entry.hasSuffix(".py") {
        problems.append(
          FieldProblem(path, "\(entry.quotedForMessage) is no Python script: name a file that ends in .py"))
      }
    case .swift(let product):
      let path = FieldPath().key("entry")
      if let message = PackagePath.problem(product) {
        problems.append(FieldProblem(path, message))
      } else if product.utf8.contains(UInt8(ascii: "/")) {
        problems.append(
          FieldProblem(
            path,
            "\(product.quotedForMessage) is a path: name the executable product of Package.swift, whose "
              + "binary is then bin/PRODUCT"
          ))
      }
    case .executable(let command):
      commandProblems(command, &problems)
    }
  }

  private func commandProblems(_ command: [String], _ problems: inout [FieldProblem]) {
    let path = FieldPath().key("command")
    guard let program = command.first, !program.isEmpty else {
      problems.append(
        FieldProblem(path, "is empty: write the program and its arguments, for instance [./bin/stats, --fast]"))
      return
    }
    if program.hasPrefix("/") {
      problems.append(
        FieldProblem(
          path.index(0),
          "\(program.quotedForMessage) is an absolute path: name a file of the package (./bin/stats) or a "
            + "program on PATH"
        ))
    } else if let file = runtime.file, let message = PackagePath.problem(file) {
      problems.append(FieldProblem(path.index(0), message))
    }
    for (index, argument) in command.enumerated() where argument.utf8.contains(0) {
      problems.append(FieldProblem(path.index(index), "contains a zero byte, which no argument can"))
    }
    if command.count > 256 {
      problems.append(FieldProblem(path, "has \(command.count) elements: at most 256 are allowed"))
    }
  }

  private func slotProblems(_ problems: inout [FieldProblem]) {
    let root = FieldPath().key("slots")
    if slots.isEmpty {
      problems.append(FieldProblem(root, "is empty: an application has at least one slot, for instance \"raw: {}\""))
    }
    if slots.count > Self.maximumSlots {
      problems.append(FieldProblem(root, "has \(slots.count) slots: at most \(Self.maximumSlots) are allowed"))
    }
    var seen: Set<EventName> = []
    for slot in slots {
      let path = root.key(slot.name.text)
      if !seen.insert(slot.name).inserted { problems.append(FieldProblem(path, "is there twice")) }
      var listed: Set<Target> = []
      for (field, targets) in [("emits", slot.emits), ("optional", slot.optional)] {
        let list = path.key(field)
        if targets.count > Self.maximumEmits {
          problems.append(FieldProblem(list, "has \(targets.count) names: at most \(Self.maximumEmits) are allowed"))
        }
        for (index, target) in targets.enumerated() {
          if !listed.insert(target).inserted {
            problems.append(FieldProblem(list.index(index), "\(target) is named twice: once is enough"))
          } else if let message = unresolved(target, signalsAllowed: true) {
            problems.append(FieldProblem(list.index(index), message))
          }
        }
      }
    }
  }

  private func signalProblems(_ problems: inout [FieldProblem]) {
    let root = FieldPath().key("signals")
    if signals.count > Self.maximumSlots {
      problems.append(FieldProblem(root, "has \(signals.count) signals: at most \(Self.maximumSlots) are allowed"))
    }
    let slotNames = Set(slots.map(\.name))
    var seen: Set<EventName> = []
    for signal in signals {
      let path = root.key(signal.name.text)
      if !seen.insert(signal.name).inserted { problems.append(FieldProblem(path, "is there twice")) }
      if slotNames.contains(signal.name) {
        problems.append(
          FieldProblem(path, "\(signal.name) is a slot too, so that emitting it would be ambiguous: rename one of them")
        )
      }
      var connected: Set<EventAddress> = []
      for (field, targets) in [("slots", signal.slots), ("optional", signal.optional)] {
        let list = path.key(field)
        if targets.count > Self.maximumEmits {
          problems.append(FieldProblem(list, "has \(targets.count) names: at most \(Self.maximumEmits) are allowed"))
        }
        for (index, target) in targets.enumerated() {
          if !connected.insert(address(of: target)).inserted {
            problems.append(FieldProblem(list.index(index), "\(target) is connected twice: once is enough"))
          } else if let message = unresolved(target, signalsAllowed: false) {
            problems.append(FieldProblem(list.index(index), message))
          }
        }
      }
      topicProblems(signal.topics, path.key("topics"), &problems)
    }
  }

  /// The full address of a slot that this manifest names.
  func address(of target: Target) -> EventAddress {
    switch target {
    case .local(let event): EventAddress(app: name, event: event)
    case .address(let address): address
    }
  }

  /// Why a name does not lead to anything in this application; nil if it does or if it is another application's.
  private func unresolved(_ target: Target, signalsAllowed: Bool) -> String? {
    let wanted: EventName
    switch target {
    case .local(let event):
      wanted = event
      if signalsAllowed, signal(event) != nil { return nil }
    case .address(let address):
      guard address.app == name else { return nil }
      wanted = address.event
    }
    if slot(wanted) != nil { return nil }
    if signal(wanted) != nil {
      return signalsAllowed
        ? "\(target) is a signal of this application: emit it by its own name, \(wanted)"
        : "\(target) is a signal: a signal can be connected to slots only"
    }
    let near = slots.map(\.name.text) + (signalsAllowed ? signals.map(\.name.text) : [])
    let kinds = signalsAllowed ? "neither a slot nor a signal" : "no slot"
    return "\(wanted) is \(kinds) of \(name)" + Suggestion.hint(for: wanted.text, among: near)
      + " (a slot of another application is written APPLICATION@EVENT)"
  }
}

/// Rules for the paths of files in a package.
public enum PackagePath {
  /// Longest path, in bytes.
  public static let maximumLength = 1024
  /// Longest name between two slashes, in bytes.
  public static let maximumComponentLength = 255
  /// Most folders a file may lie in.
  public static let maximumDepth = 32

  /// What is wrong with a path as the path of a file in a package; nil if nothing is. Good paths are relative, use
  /// `/`, have no empty, `.` or `..` components and no control characters.
  public static func problem(_ path: String) -> String? {
    let shown = path.quotedForMessage
    if path.isEmpty { return "is empty: name a file of the package" }
    if path.hasPrefix("/") { return "\(shown) is an absolute path: paths in a package are relative to its folder" }
    if path.utf8.count > maximumLength {
      return "\(shown) has \(path.utf8.count) bytes: a path may have at most \(maximumLength)"
    }
    let components = path.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
    if components.count > maximumDepth + 1 { return "\(shown) lies in more than \(maximumDepth) folders" }
    for component in components {
      if component.isEmpty { return "\(shown) has an empty part between two slashes or at its end" }
      if component.elementsEqual([UInt8(ascii: ".")]) { return "\(shown) has the part \".\": leave it out" }
      if component.elementsEqual([UInt8(ascii: "."), UInt8(ascii: ".")]) {
        return "\(shown) has the part \"..\", which could lead out of the package"
      }
      if component.count > maximumComponentLength {
        return "\(shown) has a part of \(component.count) bytes: at most \(maximumComponentLength) are allowed"
      }
      if component.contains(where: { $0 < 0x20 || $0 == 0x7f }) { return "\(shown) contains a control character" }
    }
    return nil
  }
}
