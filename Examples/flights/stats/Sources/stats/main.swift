import FlightStats
import FoundationEssentials
import Grape

let app = Application()

app.on("by-carrier") { event, context in
  let flight = try flight(in: event)
  try countOne(delayKey(flight.carrier, flight.delay), in: try context.store(StoreName.carriers))
  let airlines = try context.store(StoreName.airlines)
  if try !airlines.contains(flight.carrier) { try airlines.put(flight.carrier, flight.airline) }
}

app.on("by-route") { event, context in
  let flight = try flight(in: event)
  try countOne(delayKey(flight.route, flight.delay), in: try context.store(StoreName.routes))
}

app.on("by-class") { event, context in
  try countOne(try flight(in: event).class, in: try context.store(StoreName.classes))
}

app.on("ranking") { event, context in
  let question = try question(in: event)
  let ranking = try board(context).ranking(question)
  return question.format == .json ? Reply(try json(ranking)) : Reply(ranking.table)
}

app.on("totals") { _, context in
  Reply(try json(try board(context).totals()))
}

try await app.run()
