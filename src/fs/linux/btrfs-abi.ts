/** Request numbers of linux/btrfs.h: direction « 30 | size of the argument « 16 | 0x94 « 8 | number. Equal on x64 and arm64. */
export const REQUEST = {
  /** _IOW(15, btrfs_ioctl_vol_args) */
  SNAP_DESTROY: 0x5000940f,
  /** _IOWR(17, btrfs_ioctl_search_args_v2), Linux 3.16 */
  TREE_SEARCH_V2: 0xc0709411,
  /** _IOWR(18, btrfs_ioctl_ino_lookup_args) */
  INO_LOOKUP: 0xd0009412,
  /** _IOW(22, u64) and _IOR(24, u64): the number of a transaction */
  WAIT_SYNC: 0x40089416,
  START_SYNC: 0x80089418,
  /** _IOW(23 and 24, btrfs_ioctl_vol_args_v2) */
  SNAP_CREATE_V2: 0x50009417,
  SUBVOL_CREATE_V2: 0x50009418,
  /** _IOR(25, u64), _IOW(26, u64) */
  SUBVOL_GETFLAGS: 0x80089419,
  SUBVOL_SETFLAGS: 0x4008941a,
  /** _IOR(60, btrfs_ioctl_get_subvol_info_args), Linux 4.18 */
  GET_SUBVOL_INFO: 0x81f8943c,
  /** _IOWR(61, btrfs_ioctl_get_subvol_rootref_args), Linux 4.18 */
  GET_SUBVOL_ROOTREF: 0xd000943d,
  /** _IOWR(62, btrfs_ioctl_ino_lookup_user_args), Linux 4.18 */
  INO_LOOKUP_USER: 0xd000943e,
  /** _IOW(63, btrfs_ioctl_vol_args_v2), Linux 5.7 */
  SNAP_DESTROY_V2: 0x5000943f,
} as const;

/** Bytes of every structure that has a name; the last byte stays NUL. */
export const ARGUMENT_SIZE = 4096;
/** btrfs_ioctl_vol_args: s64 fd, char name[4088]. */
export const VOL_ARGS_NAME = 8;
/** btrfs_ioctl_vol_args_v2: s64 fd, u64 transid, u64 flags, 32 bytes for quota groups, char name[4040] or u64 subvolid. */
export const VOL_ARGS_V2 = { FD: 0, FLAGS: 16, NAME: 56, ID: 56 } as const;
/** btrfs_ioctl_get_subvol_info_args; the times are u64 seconds and u32 nanoseconds in 16 bytes. */
export const INFO = {
  SIZE: 504,
  ID: 0,
  NAME: 8,
  PARENT_ID: 264,
  DIRECTORY: 272,
  GENERATION: 280,
  FLAGS: 288,
  UUID: 296,
  PARENT_UUID: 312,
  RECEIVED_UUID: 328,
  CTRANSID: 344,
  OTRANSID: 352,
  CTIME: 376,
  OTIME: 392,
} as const;
/** btrfs_ioctl_get_subvol_rootref_args: u64 min_treeid, 255 × (u64 treeid, u64 dirid), u8 num_items. */
export const ROOTREF = { MINIMUM: 0, ITEMS: 8, ITEM_SIZE: 16, COUNT: 4088 } as const;
/** btrfs_ioctl_ino_lookup_user_args: u64 dirid, u64 treeid, char name[256], char path[3824]. */
export const LOOKUP = { DIRECTORY: 0, ID: 8, NAME: 16, PATH: 272 } as const;

/**
 * btrfs_ioctl_search_args_v2: btrfs_ioctl_search_key, u64 buf_size, then the answers: each a btrfs_ioctl_search_header
 * (u64 transid, u64 objectid, u64 offset, u32 type, u32 len) and its item.
 */
export const SEARCH = {
  TREE: 0,
  MIN_OBJECT: 8,
  MAX_OBJECT: 16,
  MIN_OFFSET: 24,
  MAX_OFFSET: 32,
  MIN_TRANSACTION: 40,
  MAX_TRANSACTION: 48,
  MIN_TYPE: 56,
  MAX_TYPE: 60,
  COUNT: 64,
  ROOM: 104,
  RESULTS: 112,
  HEADER: 32,
  OBJECT: 8,
  OFFSET: 16,
  TYPE: 24,
  LENGTH: 28,
} as const;
/** BTRFS_INODE_ITEM_KEY and btrfs_inode_item: u64 generation, u64 transid, u64 size, u64 nbytes, u64 block_group, u32 nlink, u32 uid, u32 gid, u32 mode. */
export const INODE_ITEM = { TYPE: 1, TRANSACTION: 8, LINKS: 40, MODE: 52 } as const;
/** btrfs_ioctl_ino_lookup_args: u64 treeid, u64 objectid, char name[4080]. */
export const INODE_LOOKUP = { INODE: 8, NAME: 16 } as const;
/** BTRFS_DIR_INDEX_KEY and btrfs_dir_item: 17 bytes of key, u64 transid, u16 data_len, u16 name_len, u8 type, the name. */
export const DIRECTORY_ITEM = { INDEX: 96, NAME_LENGTH: 27, NAME: 30 } as const;

export const READ_ONLY = 2n;
export const SPEC_BY_ID = 16n;
/** Inode number of every subvolume's root directory. No other entry has this number. */
export const ROOT_INODE = 256;
export const BTRFS_MAGIC = 0x9123683e;
export const NAME_MAX = 255;
