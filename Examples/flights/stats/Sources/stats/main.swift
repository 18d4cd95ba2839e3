import FlightStats
import FoundationEssentials
import Grape

let board = Board()
let app = Application()

app.on("by-carrier") { event, _ in
  board.countCarrier(of: try flight(in: event))
}

app.on("by-route") { event, _ in
  board.countRoute(of: try flight(in: event))
}

app.on("by-class") { event, _ in
  board.countClass(of: try flight(in: event))
}

app.on("ranking") { event, _ in
  let question = try question(in: event)
  let ranking = board.ranking(question)
  return question.format == .json ? Reply(try json(ranking)) : Reply(ranking.table)
}

app.on("totals") { _, _ in
  Reply(try json(board.totals()))
}

try await app.run()
