/// Builds tar archives byte by byte, also such as no program makes.
struct TarBuilder {
  private(set) var bytes: [UInt8] = []

  static let manifest = "grape: 1\nname: flights\nruntime: python\nentry: app.py\nslots: {raw: {}}\n"

  /// A manifest and its script.
  static var good: TarBuilder {
    var tar = TarBuilder()
    tar.add("grape.yaml", data: manifest)
    tar.add("app.py", data: "pass\n")
    return tar
  }

  mutating func add(
    _ name: String, type: Character = "0", data: String = "", mode: String = "0000644", link: String = "",
    size: String? = nil,
    magic: String = "ustar\u{0}00", prefix: String = "", damage: Bool = false
  ) {
    var block = [UInt8](repeating: 0, count: 512)
    func put(_ text: String, _ offset: Int, _ limit: Int) {
      let field = Array(text.utf8.prefix(limit))
      block.replaceSubrange(offset..<offset + field.count, with: field)
    }
    put(name, 0, 100)
    put(mode, 100, 8)
    put(size ?? octal(data.utf8.count), 124, 12)
    block[156] = type.asciiValue ?? 0
    put(link, 157, 100)
    put(magic, 257, 8)
    put(prefix, 345, 155)
    for index in 148..<156 { block[index] = 0x20 }
    let sum = block.reduce(0) { $0 + Int($1) } + (damage ? 1 : 0)
    put(String(octal(sum).suffix(6)) + "\u{0}", 148, 7)
    bytes += block
    bytes += data.utf8
    bytes += [UInt8](repeating: 0, count: (512 - data.utf8.count % 512) % 512)
  }

  mutating func raw(_ more: [UInt8]) { bytes += more }

  mutating func pax(_ records: [(String, String)]) {
    let text = records.map { key, value in
      let rest = " \(key)=\(value)\n"
      var length = rest.utf8.count
      while length != rest.utf8.count + String(length).utf8.count {
        length = rest.utf8.count + String(length).utf8.count
      }
      return "\(length)\(rest)"
    }.joined()
    add("pax", type: "x", data: text)
  }

  /// The archive with its end.
  var finished: [UInt8] { bytes + [UInt8](repeating: 0, count: 1024) }

  private func octal(_ number: Int) -> String {
    let text = String(number, radix: 8)
    return String(repeating: "0", count: max(0, 11 - text.count)) + text
  }
}
