import { strict as assert } from "node:assert";
import { test } from "node:test";
import { CairnError } from "../../../errors.ts";
import { defaultAddressing, parseS3Location, regionOfHost, S3Addresses, s3LocationOf } from "./location.ts";

test("parseS3Location reads each form of restic's S3 locations", () => {
  const cases: [string, string, string, string][] = [
    ["https://host:9000/bucket/a/b", "https://host:9000", "bucket", "a/b"],
    ["http://127.0.0.1:1/bucket", "http://127.0.0.1:1", "bucket", ""],
    ["HTTP://[::1]:1/bucket/", "http://[::1]:1", "bucket", ""],
    ["s3.amazonaws.com/bucket", "https://s3.amazonaws.com", "bucket", ""],
    ["//host/bucket/x", "https://host", "bucket", "x"],
    ["host:443/bucket//a/./b/../c/", "https://host", "bucket", "a/c"],
    ["https://host/bucket/a%20b%25", "https://host", "bucket", "a b%"],
    ["host/bucket/a%20b", "https://host", "bucket", "a%20b"],
  ];
  for (const [text, origin, bucket, prefix] of cases) {
    const place = parseS3Location(text);
    assert.deepEqual([place.endpoint.origin, place.bucket, place.prefix], [origin, bucket, prefix], text);
    assert.deepEqual(parseS3Location(s3LocationOf(place).slice(3)), place, text);
  }
});

test("parseS3Location refuses invalid locations with an error that contains no password", () => {
  for (const text of [
    "bucket",
    "https://host",
    "https://host/",
    "https:///bucket",
    "https://user:hunter2@host/bucket",
    "user:hunter2@host/bucket",
    "https://host/b?x=hunter2",
    "https://host/b#hunter2",
    "host/../x",
    "host/-bucket",
    "host/bucket/../..",
    "host/bucket/a\nb",
    `host/bucket/${"a".repeat(1000)}`,
    "ho st/bucket",
    "https://host:99999/bucket",
    "https://host/bucket/%zz",
  ]) {
    assert.throws(
      () => parseS3Location(text),
      (error) => error instanceof CairnError && error.code === "usage" && !error.message.includes("hunter2"),
      text,
    );
  }
});

test("defaultAddressing puts the bucket into the host name only for AWS and a valid bucket name", () => {
  const style = (text: string): string => defaultAddressing(parseS3Location(text));
  assert.equal(style("s3.eu-west-1.amazonaws.com/bucket"), "host");
  assert.equal(style("s3.amazonaws.com/with.dots"), "path");
  assert.equal(style("s3.amazonaws.com/Upper"), "path");
  assert.equal(style("minio.example/bucket"), "path");
  assert.equal(style("notamazonaws.com/bucket"), "path");
});

test("regionOfHost returns the region in a host name, or null", () => {
  assert.equal(regionOfHost("s3.eu-west-1.amazonaws.com"), "eu-west-1");
  assert.equal(regionOfHost("s3-us-gov-west-1.amazonaws.com"), "us-gov-west-1");
  assert.equal(regionOfHost("s3.dualstack.ap-south-1.amazonaws.com"), "ap-south-1");
  assert.equal(regionOfHost("s3.us-west-004.backblazeb2.com"), "us-west-004");
  assert.equal(regionOfHost("s3.amazonaws.com"), null);
  assert.equal(regionOfHost("minio.example"), null);
});

test("S3Addresses encodes paths as S3 signatures require", () => {
  const place = parseS3Location("http://host:1/bucket");
  const paths = new S3Addresses(place, "path");
  assert.equal(paths.pathOf("a b+/ü!'()*%"), "/bucket/a%20b%2B/%C3%BC%21%27%28%29%2A%25");
  assert.equal(paths.pathOf(null, { prefix: "a/b c", uploads: "" }), "/bucket?prefix=a%2Fb%20c&uploads=");
  const hosts = new S3Addresses(place, "host");
  assert.equal(hosts.origin.href, "http://bucket.host:1/");
  assert.deepEqual([hosts.pathOf("a"), hosts.pathOf(null)], ["/a", "/"]);
});
