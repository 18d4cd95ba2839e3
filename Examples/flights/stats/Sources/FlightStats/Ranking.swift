/// What to rank and how to tell it: the value of a `ranking` event. Every member may be left out.
public struct Question: Codable, Sendable {
  public enum Figure: String, Codable, Sendable { case median, mean }
  public enum Group: String, Codable, Sendable { case carrier, route }
  public enum Format: String, Codable, Sendable { case table, json }

  public var by: Figure
  public var of: Group
  /// How many places to tell; nil: all.
  public var top: Int?
  public var format: Format

  public init(by: Figure = .median, of: Group = .carrier, top: Int? = nil, format: Format = .table) {
    self.by = by
    self.of = of
    self.top = top
    self.format = format
  }

  public init(from decoder: any Decoder) throws {
    let members = try decoder.container(keyedBy: CodingKeys.self)
    by = try members.decodeIfPresent(Figure.self, forKey: .by) ?? .median
    of = try members.decodeIfPresent(Group.self, forKey: .of) ?? .carrier
    top = try members.decodeIfPresent(Int.self, forKey: .top)
    format = try members.decodeIfPresent(Format.self, forKey: .format) ?? .table
  }
}

/// Groups of flights in order of their delay.
public struct Ranking: Codable, Sendable {
  public struct Place: Codable, Sendable {
    public var rank: Int
    /// Carrier's code or route.
    public var group: String
    /// Airline's name; nil for a route.
    public var name: String?
    public var flights: Int
    public var missing: Int
    public var median: Double
    public var mean: Double
  }

  public var by: Question.Figure
  public var of: Question.Group
  public var places: [Place]

  init(_ question: Question, groups: [String: DelayCounts], names: [String: String]) {
    by = question.by
    of = question.of
    var found: [Place] = []
    for (group, counts) in groups {
      guard let median = counts.median, let mean = counts.mean else { continue }
      found.append(
        Place(
          rank: 0, group: group, name: names[group], flights: counts.flights, missing: counts.missing,
          median: median, mean: mean))
    }
    found.sort {
      let (left, right) = question.by == .median ? ($0.median, $1.median) : ($0.mean, $1.mean)
      return (left, $0.group) < (right, $1.group)
    }
    places = Array(found.prefix(max(0, question.top ?? found.count)))
    for index in places.indices { places[index].rank = index + 1 }
  }

  /// The ranking for people: one line per place, columns aligned.
  public var table: String {
    var rows = [["rank", of.rawValue, "flights", "missing", "median", "mean"]]
    for place in places {
      let group = place.name.map { "\(place.group)  \($0)" } ?? place.group
      rows.append([
        "\(place.rank)", group, "\(place.flights)", "\(place.missing)",
        oneDecimal(place.median), oneDecimal(place.mean),
      ])
    }
    let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
    var lines = ["Arrival delay by \(of.rawValue), minutes, in order of the \(by.rawValue)"]
    for row in rows {
      let cells = row.indices.map { column in
        let padding = String(repeating: " ", count: widths[column] - row[column].count)
        return column == 1 ? row[column] + padding : padding + row[column]
      }
      lines.append(cells.joined(separator: "  "))
    }
    return lines.joined(separator: "\n") + "\n"
  }

  private func oneDecimal(_ value: Double) -> String {
    let tenths = Int((value * 10).rounded())
    return "\(tenths < 0 ? "-" : "")\(abs(tenths) / 10).\(abs(tenths) % 10)"
  }
}
