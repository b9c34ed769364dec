declare module 'kafkajs-snappy' {
  export default function createSnappyCodec(): { decompress(buffer: Buffer): Promise<Buffer> };
}

declare module 'lz4js' {
  export function decompress(frame: Uint8Array): Uint8Array;
}
