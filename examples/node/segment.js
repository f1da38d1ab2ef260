// Segment the object at a point of a photo, by samserve's proto alone.
//
//     npm install && node segment.js photo.jpg localhost:50051 320,240
"use strict";

const fs = require("fs");
const path = require("path");
const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");

const PROTOS = path.join(__dirname, "..", "..", "protos");

const [photo, server = "localhost:50051", point = "0.5,0.5"] = process.argv.slice(2);
if (!photo) {
  console.error("usage: node segment.js PHOTO [HOST:PORT [X,Y]]");
  process.exit(2);
}
const [x, y] = point.split(",").map(Number);

const definition = protoLoader.loadSync("samserve/v1/segmentation.proto", { includeDirs: [PROTOS], enums: String });
const { SegmentationService } = grpc.loadPackageDefinition(definition).samserve.v1;
// Photos, and the masks of many prompts, may be larger than the 4 MB that gRPC takes by default.
const client = new SegmentationService(server, grpc.credentials.createInsecure(), {
  "grpc.max_receive_message_length": 64 << 20,
});

const request = {
  image: { data: fs.readFileSync(photo) },
  prompts: [{ points: [{ x, y, label: "POINT_LABEL_FOREGROUND" }] }],
  multimaskOutput: true,
  coordinateSpace: Math.max(x, y) <= 1 ? "COORDINATE_SPACE_NORMALIZED" : "COORDINATE_SPACE_PIXELS",
};
const deadline = Date.now() + 30_000;

client.segment(request, { deadline }, (error, response) => {
  client.close();
  if (error) {
    // INVALID_ARGUMENT names the field, RESOURCE_EXHAUSTED and UNAVAILABLE may be tried again later.
    console.error(`${grpc.status[error.code]}: ${error.details}`);
    process.exit(1);
  }
  console.log(`${response.imageId}, ${response.originalSize.width} x ${response.originalSize.height}`);
  response.results[0].masks.forEach((mask, index) => {
    const { x0, y0, x1, y1 } = mask.bbox;
    console.log(`mask ${index}: IoU ${mask.iouPrediction.toFixed(2)}, ${mask.area} pixels, box ${[x0, y0, x1, y1]}`);
  });
});
