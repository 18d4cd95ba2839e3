/// Rows in aligned columns.
struct Table {
  enum Alignment { case left, right }

  private let alignments: [Alignment]
  private var rows: [[String]]

  /// Column titles, in capitals by custom, with their alignment.
  init(_ columns: [(title: String, alignment: Alignment)]) {
    alignments = columns.map { $0.alignment }
    rows = [columns.map { $0.title }]
  }

  mutating func add(_ cells: [String]) {
    precondition(cells.count == alignments.count, "a row has as many cells as the table has columns")
    rows.append(cells)
  }

  /// The lines, without spaces at their ends.
  var lines: [String] {
    let widths = alignments.indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
    return rows.map { row in
      var line = ""
      for (column, cell) in row.enumerated() {
        if column > 0 { line += "  " }
        let padding = String(repeating: " ", count: widths[column] - cell.count)
        line += alignments[column] == .left ? cell + padding : padding + cell
      }
      while line.last == " " { line.removeLast() }
      return line
    }
  }
}
