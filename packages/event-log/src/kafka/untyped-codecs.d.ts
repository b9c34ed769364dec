declare module 'kafkajs-snappy' {
  export default function createSnappyCodec(): { decompress(buffer: Buffer): Promise<Buffer> };
}

declare module 'lz4js' {
  /** The most that it may hold. */
  export function decompressBound(frame: Uint8Array): number;
  /** How much it holds. */
  export function decompressFrame(frame: Uint8Array, room: Uint8Array): number;
}
