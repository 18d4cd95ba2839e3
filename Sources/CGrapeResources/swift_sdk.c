// Written by scripts/embed_sdk.py: the Swift SDK, file by file.
#include "grape_resources.h"

#pragma clang diagnostic ignored "-Wc23-extensions"

static const unsigned char file0[] = {
#embed "../../LICENSE"
};
static const unsigned char file1[] = {
#embed "sdk/swift/Package.swift.txt"
};
static const unsigned char file2[] = {
#embed "sdk/swift/README.md"
};
static const unsigned char file3[] = {
#embed "../CGrapeLinux/crc32c.c"
};
static const unsigned char file4[] = {
#embed "../CGrapeLinux/include/grape_linux.h"
};
static const unsigned char file5[] = {
#embed "../CGrapeLinux/linux.c"
};
static const unsigned char file6[] = {
#embed "../CLMDB/module.modulemap"
};
static const unsigned char file7[] = {
#embed "../CLMDB/shim.h"
};
static const unsigned char file8[] = {
#embed "../CZstd/module.modulemap"
};
static const unsigned char file9[] = {
#embed "../CZstd/shim.h"
};
static const unsigned char file10[] = {
#embed "../Grape/Client/Client.swift"
};
static const unsigned char file11[] = {
#embed "../Grape/Client/ClientError.swift"
};
static const unsigned char file12[] = {
#embed "../Grape/Client/ClientFrames.swift"
};
static const unsigned char file13[] = {
#embed "../Grape/Client/ClientLoop.swift"
};
static const unsigned char file14[] = {
#embed "../Grape/Client/ClientThread.swift"
};
static const unsigned char file15[] = {
#embed "../Grape/Client/ClientWindow.swift"
};
static const unsigned char file16[] = {
#embed "../Grape/Client/Durability.swift"
};
static const unsigned char file17[] = {
#embed "../Grape/Client/EventProducer.swift"
};
static const unsigned char file18[] = {
#embed "../Grape/Client/FrameAssembler.swift"
};
static const unsigned char file19[] = {
#embed "../Grape/Client/NodeConnection+Requests.swift"
};
static const unsigned char file20[] = {
#embed "../Grape/Client/NodeConnection.swift"
};
static const unsigned char file21[] = {
#embed "../Grape/Client/NodeSocket.swift"
};
static const unsigned char file22[] = {
#embed "../Grape/Client/ProducerWindow.swift"
};
static const unsigned char file23[] = {
#embed "../Grape/Client/ReceivedFrame.swift"
};
static const unsigned char file24[] = {
#embed "../Grape/Client/Replies.swift"
};
static const unsigned char file25[] = {
#embed "../Grape/Client/WallClock.swift"
};
static const unsigned char file26[] = {
#embed "../Grape/Event.swift"
};
static const unsigned char file27[] = {
#embed "../Grape/EventData.swift"
};
static const unsigned char file28[] = {
#embed "../Grape/Exports.swift"
};
static const unsigned char file29[] = {
#embed "../Grape/Reply.swift"
};
static const unsigned char file30[] = {
#embed "../Grape/State/AskBase.swift"
};
static const unsigned char file31[] = {
#embed "../Grape/State/JSONDecoding.swift"
};
static const unsigned char file32[] = {
#embed "../Grape/State/JSONEncoding.swift"
};
static const unsigned char file33[] = {
#embed "../Grape/State/JSONInteger.swift"
};
static const unsigned char file34[] = {
#embed "../Grape/State/MapBase.swift"
};
static const unsigned char file35[] = {
#embed "../Grape/State/MemoryBase.swift"
};
static const unsigned char file36[] = {
#embed "../Grape/State/PartitionOverlay.swift"
};
static const unsigned char file37[] = {
#embed "../Grape/State/ReadableStore+Scanning.swift"
};
static const unsigned char file38[] = {
#embed "../Grape/State/ReadableStore.swift"
};
static const unsigned char file39[] = {
#embed "../Grape/State/RunState.swift"
};
static const unsigned char file40[] = {
#embed "../Grape/State/StateArena.swift"
};
static const unsigned char file41[] = {
#embed "../Grape/State/StateBase.swift"
};
static const unsigned char file42[] = {
#embed "../Grape/State/StateHash.swift"
};
static const unsigned char file43[] = {
#embed "../Grape/State/StateScan.swift"
};
static const unsigned char file44[] = {
#embed "../Grape/State/StateSpace.swift"
};
static const unsigned char file45[] = {
#embed "../Grape/State/StateTable.swift"
};
static const unsigned char file46[] = {
#embed "../Grape/State/Store+JSON.swift"
};
static const unsigned char file47[] = {
#embed "../Grape/State/Store.swift"
};
static const unsigned char file48[] = {
#embed "../Grape/State/StoreAccess.swift"
};
static const unsigned char file49[] = {
#embed "../Grape/State/TestStore.swift"
};
static const unsigned char file50[] = {
#embed "../Grape/State/TypedStore.swift"
};
static const unsigned char file51[] = {
#embed "../Grape/TestResult.swift"
};
static const unsigned char file52[] = {
#embed "../Grape/TestRun.swift"
};
static const unsigned char file53[] = {
#embed "../Grape/Worker/Application+Running.swift"
};
static const unsigned char file54[] = {
#embed "../Grape/Worker/Application.swift"
};
static const unsigned char file55[] = {
#embed "../Grape/Worker/Context+Log.swift"
};
static const unsigned char file56[] = {
#embed "../Grape/Worker/Context.swift"
};
static const unsigned char file57[] = {
#embed "../Grape/Worker/Delivery.swift"
};
static const unsigned char file58[] = {
#embed "../Grape/Worker/DeliveryRun.swift"
};
static const unsigned char file59[] = {
#embed "../Grape/Worker/EventGroup.swift"
};
static const unsigned char file60[] = {
#embed "../Grape/Worker/FrameReceiver.swift"
};
static const unsigned char file61[] = {
#embed "../Grape/Worker/FrameSender.swift"
};
static const unsigned char file62[] = {
#embed "../Grape/Worker/Handler.swift"
};
static const unsigned char file63[] = {
#embed "../Grape/Worker/Heartbeat.swift"
};
static const unsigned char file64[] = {
#embed "../Grape/Worker/Liveness.swift"
};
static const unsigned char file65[] = {
#embed "../Grape/Worker/LogQueue.swift"
};
static const unsigned char file66[] = {
#embed "../Grape/Worker/LoopExecutor.swift"
};
static const unsigned char file67[] = {
#embed "../Grape/Worker/Output.swift"
};
static const unsigned char file68[] = {
#embed "../Grape/Worker/OutputSet.swift"
};
static const unsigned char file69[] = {
#embed "../Grape/Worker/ProcessSignals.swift"
};
static const unsigned char file70[] = {
#embed "../Grape/Worker/Progress.swift"
};
static const unsigned char file71[] = {
#embed "../Grape/Worker/Session.swift"
};
static const unsigned char file72[] = {
#embed "../Grape/Worker/Signal.swift"
};
static const unsigned char file73[] = {
#embed "../Grape/Worker/Tally.swift"
};
static const unsigned char file74[] = {
#embed "../Grape/Worker/Thread.swift"
};
static const unsigned char file75[] = {
#embed "../Grape/Worker/Verdict.swift"
};
static const unsigned char file76[] = {
#embed "../Grape/Worker/Worker+State.swift"
};
static const unsigned char file77[] = {
#embed "../Grape/Worker/Worker.swift"
};
static const unsigned char file78[] = {
#embed "../Grape/Worker/WorkerCore.swift"
};
static const unsigned char file79[] = {
#embed "../Grape/Worker/WorkerEnd.swift"
};
static const unsigned char file80[] = {
#embed "../Grape/Worker/WorkerEnvironment.swift"
};
static const unsigned char file81[] = {
#embed "../Grape/Worker/WorkerInfo.swift"
};
static const unsigned char file82[] = {
#embed "../GrapeCore/Base64.swift"
};
static const unsigned char file83[] = {
#embed "../GrapeCore/BatchCompression.swift"
};
static const unsigned char file84[] = {
#embed "../GrapeCore/CalendarTime.swift"
};
static const unsigned char file85[] = {
#embed "../GrapeCore/EventHeaders.swift"
};
static const unsigned char file86[] = {
#embed "../GrapeCore/JSONValue+Parsing.swift"
};
static const unsigned char file87[] = {
#embed "../GrapeCore/JSONValue+Writing.swift"
};
static const unsigned char file88[] = {
#embed "../GrapeCore/JSONValue.swift"
};
static const unsigned char file89[] = {
#embed "../GrapeCore/Manifest.swift"
};
static const unsigned char file90[] = {
#embed "../GrapeCore/ManifestProblem.swift"
};
static const unsigned char file91[] = {
#embed "../GrapeCore/ManifestSource.swift"
};
static const unsigned char file92[] = {
#embed "../GrapeCore/ManifestValidation.swift"
};
static const unsigned char file93[] = {
#embed "../GrapeCore/Names.swift"
};
static const unsigned char file94[] = {
#embed "../GrapeCore/NamesRule.swift"
};
static const unsigned char file95[] = {
#embed "../GrapeCore/Partitioner.swift"
};
static const unsigned char file96[] = {
#embed "../GrapeCore/Profile.swift"
};
static const unsigned char file97[] = {
#embed "../GrapeCore/ProfileQuantities.swift"
};
static const unsigned char file98[] = {
#embed "../GrapeCore/ProfileValidation.swift"
};
static const unsigned char file99[] = {
#embed "../GrapeCore/SourceEpoch.swift"
};
static const unsigned char file100[] = {
#embed "../GrapeCore/Status.swift"
};
static const unsigned char file101[] = {
#embed "../GrapeCore/TopicName.swift"
};
static const unsigned char file102[] = {
#embed "../GrapeCore/Topology+Changes.swift"
};
static const unsigned char file103[] = {
#embed "../GrapeCore/Topology+Cycles.swift"
};
static const unsigned char file104[] = {
#embed "../GrapeCore/Topology+Topics.swift"
};
static const unsigned char file105[] = {
#embed "../GrapeCore/Topology.swift"
};
static const unsigned char file106[] = {
#embed "../GrapeCore/TopologyDiagrams.swift"
};
static const unsigned char file107[] = {
#embed "../GrapeCore/TopologyGraph.swift"
};
static const unsigned char file108[] = {
#embed "../GrapeCore/TopologyText.swift"
};
static const unsigned char file109[] = {
#embed "../GrapeState/Format/StateEntry.swift"
};
static const unsigned char file110[] = {
#embed "../GrapeState/Format/StateKey.swift"
};
static const unsigned char file111[] = {
#embed "../GrapeState/Format/StatePosition.swift"
};
static const unsigned char file112[] = {
#embed "../GrapeState/LMDB/LMDBEnvironment.swift"
};
static const unsigned char file113[] = {
#embed "../GrapeState/LMDB/StateReader.swift"
};
static const unsigned char file114[] = {
#embed "../GrapeState/LMDB/StateWriter.swift"
};
static const unsigned char file115[] = {
#embed "../GrapeState/StateError.swift"
};
static const unsigned char file116[] = {
#embed "../GrapeWire/ByteReader.swift"
};
static const unsigned char file117[] = {
#embed "../GrapeWire/ByteSlice.swift"
};
static const unsigned char file118[] = {
#embed "../GrapeWire/ByteWriter.swift"
};
static const unsigned char file119[] = {
#embed "../GrapeWire/CRC32C.swift"
};
static const unsigned char file120[] = {
#embed "../GrapeWire/Frame.swift"
};
static const unsigned char file121[] = {
#embed "../GrapeWire/Record.swift"
};
static const unsigned char file122[] = {
#embed "../GrapeWire/RecordBatch+Filtering.swift"
};
static const unsigned char file123[] = {
#embed "../GrapeWire/RecordBatch+Packing.swift"
};
static const unsigned char file124[] = {
#embed "../GrapeWire/RecordBatch+Reading.swift"
};
static const unsigned char file125[] = {
#embed "../GrapeWire/RecordBatch.swift"
};
static const unsigned char file126[] = {
#embed "../GrapeWire/RecordBatchBuilder.swift"
};
static const unsigned char file127[] = {
#embed "../GrapeWire/WireError.swift"
};
static const unsigned char file128[] = {
#embed "../GrapeWire/Zstd.swift"
};

static const struct grape_resource files[] = {
  {"LICENSE", file0, sizeof file0},
  {"Package.swift", file1, sizeof file1},
  {"README.md", file2, sizeof file2},
  {"Sources/CGrapeLinux/crc32c.c", file3, sizeof file3},
  {"Sources/CGrapeLinux/include/grape_linux.h", file4, sizeof file4},
  {"Sources/CGrapeLinux/linux.c", file5, sizeof file5},
  {"Sources/CLMDB/module.modulemap", file6, sizeof file6},
  {"Sources/CLMDB/shim.h", file7, sizeof file7},
  {"Sources/CZstd/module.modulemap", file8, sizeof file8},
  {"Sources/CZstd/shim.h", file9, sizeof file9},
  {"Sources/Grape/Client/Client.swift", file10, sizeof file10},
  {"Sources/Grape/Client/ClientError.swift", file11, sizeof file11},
  {"Sources/Grape/Client/ClientFrames.swift", file12, sizeof file12},
  {"Sources/Grape/Client/ClientLoop.swift", file13, sizeof file13},
  {"Sources/Grape/Client/ClientThread.swift", file14, sizeof file14},
  {"Sources/Grape/Client/ClientWindow.swift", file15, sizeof file15},
  {"Sources/Grape/Client/Durability.swift", file16, sizeof file16},
  {"Sources/Grape/Client/EventProducer.swift", file17, sizeof file17},
  {"Sources/Grape/Client/FrameAssembler.swift", file18, sizeof file18},
  {"Sources/Grape/Client/NodeConnection+Requests.swift", file19, sizeof file19},
  {"Sources/Grape/Client/NodeConnection.swift", file20, sizeof file20},
  {"Sources/Grape/Client/NodeSocket.swift", file21, sizeof file21},
  {"Sources/Grape/Client/ProducerWindow.swift", file22, sizeof file22},
  {"Sources/Grape/Client/ReceivedFrame.swift", file23, sizeof file23},
  {"Sources/Grape/Client/Replies.swift", file24, sizeof file24},
  {"Sources/Grape/Client/WallClock.swift", file25, sizeof file25},
  {"Sources/Grape/Event.swift", file26, sizeof file26},
  {"Sources/Grape/EventData.swift", file27, sizeof file27},
  {"Sources/Grape/Exports.swift", file28, sizeof file28},
  {"Sources/Grape/Reply.swift", file29, sizeof file29},
  {"Sources/Grape/State/AskBase.swift", file30, sizeof file30},
  {"Sources/Grape/State/JSONDecoding.swift", file31, sizeof file31},
  {"Sources/Grape/State/JSONEncoding.swift", file32, sizeof file32},
  {"Sources/Grape/State/JSONInteger.swift", file33, sizeof file33},
  {"Sources/Grape/State/MapBase.swift", file34, sizeof file34},
  {"Sources/Grape/State/MemoryBase.swift", file35, sizeof file35},
  {"Sources/Grape/State/PartitionOverlay.swift", file36, sizeof file36},
  {"Sources/Grape/State/ReadableStore+Scanning.swift", file37, sizeof file37},
  {"Sources/Grape/State/ReadableStore.swift", file38, sizeof file38},
  {"Sources/Grape/State/RunState.swift", file39, sizeof file39},
  {"Sources/Grape/State/StateArena.swift", file40, sizeof file40},
  {"Sources/Grape/State/StateBase.swift", file41, sizeof file41},
  {"Sources/Grape/State/StateHash.swift", file42, sizeof file42},
  {"Sources/Grape/State/StateScan.swift", file43, sizeof file43},
  {"Sources/Grape/State/StateSpace.swift", file44, sizeof file44},
  {"Sources/Grape/State/StateTable.swift", file45, sizeof file45},
  {"Sources/Grape/State/Store+JSON.swift", file46, sizeof file46},
  {"Sources/Grape/State/Store.swift", file47, sizeof file47},
  {"Sources/Grape/State/StoreAccess.swift", file48, sizeof file48},
  {"Sources/Grape/State/TestStore.swift", file49, sizeof file49},
  {"Sources/Grape/State/TypedStore.swift", file50, sizeof file50},
  {"Sources/Grape/TestResult.swift", file51, sizeof file51},
  {"Sources/Grape/TestRun.swift", file52, sizeof file52},
  {"Sources/Grape/Worker/Application+Running.swift", file53, sizeof file53},
  {"Sources/Grape/Worker/Application.swift", file54, sizeof file54},
  {"Sources/Grape/Worker/Context+Log.swift", file55, sizeof file55},
  {"Sources/Grape/Worker/Context.swift", file56, sizeof file56},
  {"Sources/Grape/Worker/Delivery.swift", file57, sizeof file57},
  {"Sources/Grape/Worker/DeliveryRun.swift", file58, sizeof file58},
  {"Sources/Grape/Worker/EventGroup.swift", file59, sizeof file59},
  {"Sources/Grape/Worker/FrameReceiver.swift", file60, sizeof file60},
  {"Sources/Grape/Worker/FrameSender.swift", file61, sizeof file61},
  {"Sources/Grape/Worker/Handler.swift", file62, sizeof file62},
  {"Sources/Grape/Worker/Heartbeat.swift", file63, sizeof file63},
  {"Sources/Grape/Worker/Liveness.swift", file64, sizeof file64},
  {"Sources/Grape/Worker/LogQueue.swift", file65, sizeof file65},
  {"Sources/Grape/Worker/LoopExecutor.swift", file66, sizeof file66},
  {"Sources/Grape/Worker/Output.swift", file67, sizeof file67},
  {"Sources/Grape/Worker/OutputSet.swift", file68, sizeof file68},
  {"Sources/Grape/Worker/ProcessSignals.swift", file69, sizeof file69},
  {"Sources/Grape/Worker/Progress.swift", file70, sizeof file70},
  {"Sources/Grape/Worker/Session.swift", file71, sizeof file71},
  {"Sources/Grape/Worker/Signal.swift", file72, sizeof file72},
  {"Sources/Grape/Worker/Tally.swift", file73, sizeof file73},
  {"Sources/Grape/Worker/Thread.swift", file74, sizeof file74},
  {"Sources/Grape/Worker/Verdict.swift", file75, sizeof file75},
  {"Sources/Grape/Worker/Worker+State.swift", file76, sizeof file76},
  {"Sources/Grape/Worker/Worker.swift", file77, sizeof file77},
  {"Sources/Grape/Worker/WorkerCore.swift", file78, sizeof file78},
  {"Sources/Grape/Worker/WorkerEnd.swift", file79, sizeof file79},
  {"Sources/Grape/Worker/WorkerEnvironment.swift", file80, sizeof file80},
  {"Sources/Grape/Worker/WorkerInfo.swift", file81, sizeof file81},
  {"Sources/GrapeCore/Base64.swift", file82, sizeof file82},
  {"Sources/GrapeCore/BatchCompression.swift", file83, sizeof file83},
  {"Sources/GrapeCore/CalendarTime.swift", file84, sizeof file84},
  {"Sources/GrapeCore/EventHeaders.swift", file85, sizeof file85},
  {"Sources/GrapeCore/JSONValue+Parsing.swift", file86, sizeof file86},
  {"Sources/GrapeCore/JSONValue+Writing.swift", file87, sizeof file87},
  {"Sources/GrapeCore/JSONValue.swift", file88, sizeof file88},
  {"Sources/GrapeCore/Manifest.swift", file89, sizeof file89},
  {"Sources/GrapeCore/ManifestProblem.swift", file90, sizeof file90},
  {"Sources/GrapeCore/ManifestSource.swift", file91, sizeof file91},
  {"Sources/GrapeCore/ManifestValidation.swift", file92, sizeof file92},
  {"Sources/GrapeCore/Names.swift", file93, sizeof file93},
  {"Sources/GrapeCore/NamesRule.swift", file94, sizeof file94},
  {"Sources/GrapeCore/Partitioner.swift", file95, sizeof file95},
  {"Sources/GrapeCore/Profile.swift", file96, sizeof file96},
  {"Sources/GrapeCore/ProfileQuantities.swift", file97, sizeof file97},
  {"Sources/GrapeCore/ProfileValidation.swift", file98, sizeof file98},
  {"Sources/GrapeCore/SourceEpoch.swift", file99, sizeof file99},
  {"Sources/GrapeCore/Status.swift", file100, sizeof file100},
  {"Sources/GrapeCore/TopicName.swift", file101, sizeof file101},
  {"Sources/GrapeCore/Topology+Changes.swift", file102, sizeof file102},
  {"Sources/GrapeCore/Topology+Cycles.swift", file103, sizeof file103},
  {"Sources/GrapeCore/Topology+Topics.swift", file104, sizeof file104},
  {"Sources/GrapeCore/Topology.swift", file105, sizeof file105},
  {"Sources/GrapeCore/TopologyDiagrams.swift", file106, sizeof file106},
  {"Sources/GrapeCore/TopologyGraph.swift", file107, sizeof file107},
  {"Sources/GrapeCore/TopologyText.swift", file108, sizeof file108},
  {"Sources/GrapeState/Format/StateEntry.swift", file109, sizeof file109},
  {"Sources/GrapeState/Format/StateKey.swift", file110, sizeof file110},
  {"Sources/GrapeState/Format/StatePosition.swift", file111, sizeof file111},
  {"Sources/GrapeState/LMDB/LMDBEnvironment.swift", file112, sizeof file112},
  {"Sources/GrapeState/LMDB/StateReader.swift", file113, sizeof file113},
  {"Sources/GrapeState/LMDB/StateWriter.swift", file114, sizeof file114},
  {"Sources/GrapeState/StateError.swift", file115, sizeof file115},
  {"Sources/GrapeWire/ByteReader.swift", file116, sizeof file116},
  {"Sources/GrapeWire/ByteSlice.swift", file117, sizeof file117},
  {"Sources/GrapeWire/ByteWriter.swift", file118, sizeof file118},
  {"Sources/GrapeWire/CRC32C.swift", file119, sizeof file119},
  {"Sources/GrapeWire/Frame.swift", file120, sizeof file120},
  {"Sources/GrapeWire/Record.swift", file121, sizeof file121},
  {"Sources/GrapeWire/RecordBatch+Filtering.swift", file122, sizeof file122},
  {"Sources/GrapeWire/RecordBatch+Packing.swift", file123, sizeof file123},
  {"Sources/GrapeWire/RecordBatch+Reading.swift", file124, sizeof file124},
  {"Sources/GrapeWire/RecordBatch.swift", file125, sizeof file125},
  {"Sources/GrapeWire/RecordBatchBuilder.swift", file126, sizeof file126},
  {"Sources/GrapeWire/WireError.swift", file127, sizeof file127},
  {"Sources/GrapeWire/Zstd.swift", file128, sizeof file128},
};
const struct grape_resource *grape_sdk_swift_files(void) { return files; }
const size_t grape_sdk_swift_count = sizeof files / sizeof *files;
