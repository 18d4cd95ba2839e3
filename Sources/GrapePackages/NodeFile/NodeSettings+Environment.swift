public import GrapeCore

extension NodeSettings {
  /// Names of variables that begin like ours and are none of the settings.
  private static let others = [SettingKey.variablePrefix + "CONFIG"]

  /// Reads the variables `GRAPE_SERVE_…`; one that is empty says nothing. Relative paths begin at `folder`. Errors: all
  /// that is wrong, one problem a line.
  public init(environment: [String: String], folder: String) throws(QuantityError) {
    self.init()
    var problems: [String] = []
    let keys = Dictionary(uniqueKeysWithValues: SettingKey.all.map { ($0.variable, $0) })
    for (name, value) in environment.sorted(by: { $0.key < $1.key }) where name.hasPrefix(SettingKey.variablePrefix) {
      guard !value.isEmpty, !Self.others.contains(name) else { continue }
      guard let key = keys[name] else {
        let near = Suggestion.nearest(to: name, among: keys.keys.sorted() + Self.others)
        problems.append("unknown variable \(name)\(near.map { ": did you mean \($0)?" } ?? "")")
        continue
      }
      do throws(QuantityError) {
        try key.set(value, at: name, in: &self)
      } catch {
        problems.append("\(name): \(error.message)")
      }
    }
    data?.value.resolve(in: folder)
    socket?.value.resolve(in: folder)
    guard problems.isEmpty else { throw QuantityError(problems.joined(separator: "\n")) }
  }
}
