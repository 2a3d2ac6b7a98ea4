/*M!999999\- enable the sandbox mode */ 
-- MariaDB dump 10.19  Distrib 10.11.19-MariaDB, for debian-linux-gnu (x86_64)
--
-- Host: localhost    Database: shop
-- ------------------------------------------------------
-- Server version	10.11.19-MariaDB-0+deb12u1

/*!40101 SET @OLD_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT */;
/*!40101 SET @OLD_CHARACTER_SET_RESULTS=@@CHARACTER_SET_RESULTS */;
/*!40101 SET @OLD_COLLATION_CONNECTION=@@COLLATION_CONNECTION */;
/*!40101 SET NAMES utf8mb4 */;
/*!40103 SET @OLD_TIME_ZONE=@@TIME_ZONE */;
/*!40103 SET TIME_ZONE='+00:00' */;
/*!40014 SET @OLD_UNIQUE_CHECKS=@@UNIQUE_CHECKS, UNIQUE_CHECKS=0 */;
/*!40014 SET @OLD_FOREIGN_KEY_CHECKS=@@FOREIGN_KEY_CHECKS, FOREIGN_KEY_CHECKS=0 */;
/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */;
/*!40111 SET @OLD_SQL_NOTES=@@SQL_NOTES, SQL_NOTES=0 */;

--
-- Table structure for table `BaileysKeys`
--

DROP TABLE IF EXISTS `BaileysKeys`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8mb4 */;
CREATE TABLE `BaileysKeys` (
  `whatsappId` int(11) DEFAULT NULL,
  `type` varchar(100) DEFAULT NULL,
  `key` varchar(255) DEFAULT NULL,
  `value` longtext DEFAULT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
/*!40101 SET character_set_client = @saved_cs_client */;

--
-- Dumping data for table `BaileysKeys`
--

LOCK TABLES `BaileysKeys` WRITE;
/*!40000 ALTER TABLE `BaileysKeys` DISABLE KEYS */;
INSERT INTO `BaileysKeys` (`whatsappId`, `type`, `key`, `value`) VALUES (7,'identity-key','5511900000002.0','{\"type\": \"Buffer\", \"data\": [5, 245, 130, 220, 52, 76, 38, 26, 50, 76, 14, 251, 27, 44, 95, 42, 79, 51, 172, 33, 47, 133, 56, 44, 21, 19, 97, 89, 63, 41, 131, 188, 85]}');
INSERT INTO `BaileysKeys` (`whatsappId`, `type`, `key`, `value`) VALUES (7,'pre-key','1','{\"private\": {\"type\": \"Buffer\", \"data\": [56, 201, 211, 215, 132, 223, 246, 235, 39, 196, 166, 205, 28, 120, 108, 183, 74, 161, 131, 5, 50, 26, 8, 0, 90, 222, 203, 176, 198, 160, 100, 127]}, \"public\": {\"type\": \"Buffer\", \"data\": [15, 251, 127, 136, 38, 179, 4, 22, 64, 117, 101, 157, 118, 61, 59, 167, 241, 231, 48, 115, 239, 4, 13, 253, 28, 200, 30, 209, 123, 17, 129, 68]}}');
INSERT INTO `BaileysKeys` (`whatsappId`, `type`, `key`, `value`) VALUES (7,'pre-key','2','{\"private\": {\"type\": \"Buffer\", \"data\": [248, 160, 195, 134, 206, 218, 98, 121, 44, 144, 188, 249, 176, 115, 241, 7, 183, 164, 245, 196, 85, 101, 108, 121, 222, 7, 211, 182, 96, 215, 51, 80]}, \"public\": {\"type\": \"Buffer\", \"data\": [56, 142, 119, 0, 129, 42, 199, 23, 103, 165, 83, 18, 10, 167, 117, 200, 57, 241, 249, 247, 77, 3, 59, 2, 254, 64, 205, 126, 80, 117, 52, 86]}}');
INSERT INTO `BaileysKeys` (`whatsappId`, `type`, `key`, `value`) VALUES (7,'pre-key','4','{\"private\": {\"type\": \"Buffer\", \"data\": [88, 126, 104, 160, 67, 87, 89, 255, 58, 73, 225, 98, 90, 21, 88, 125, 57, 47, 143, 210, 154, 198, 143, 129, 208, 44, 221, 137, 71, 141, 224, 99]}, \"public\": {\"type\": \"Buffer\", \"data\": [69, 250, 183, 232, 138, 83, 34, 138, 191, 13, 122, 221, 194, 208, 13, 177, 94, 55, 7, 102, 140, 249, 177, 109, 165, 49, 44, 11, 189, 214, 147, 75]}}');
INSERT INTO `BaileysKeys` (`whatsappId`, `type`, `key`, `value`) VALUES (7,'pre-key','5','{\"private\": {\"type\": \"Buffer\", \"data\": [144, 37, 96, 149, 218, 78, 79, 16, 212, 242, 249, 205, 100, 90, 33, 70, 65, 2, 75, 9, 87, 231, 179, 93, 56, 142, 83, 21, 40, 102, 179, 79]}, \"public\": {\"type\": \"Buffer\", \"data\": [195, 145, 219, 73, 183, 63, 45, 255, 150, 163, 54, 11, 0, 149, 160, 255, 144, 250, 77, 121, 105, 251, 220, 57, 118, 255, 4, 194, 135, 108, 51, 60]}}');
INSERT INTO `BaileysKeys` (`whatsappId`, `type`, `key`, `value`) VALUES (7,'pre-key','6','{\"private\": {\"type\": \"Buffer\", \"data\": [104, 142, 31, 116, 120, 162, 112, 73, 129, 61, 231, 126, 100, 84, 13, 248, 141, 156, 219, 86, 56, 139, 42, 88, 5, 38, 193, 252, 170, 153, 109, 104]}, \"public\": {\"type\": \"Buffer\", \"data\": [2, 221, 77, 120, 209, 67, 46, 61, 222, 233, 222, 163, 235, 248, 132, 231, 136, 133, 54, 233, 100, 173, 62, 230, 188, 27, 31, 158, 218, 17, 115, 74]}}');
INSERT INTO `BaileysKeys` (`whatsappId`, `type`, `key`, `value`) VALUES (7,'session','5511900000002.0','{\"_sessions\": {\"BYDqWGLj2WJewkqEipLKg7yLn4JKAsvVpvP+AeBD8oM6\": {\"registrationId\": 161, \"currentRatchet\": {\"ephemeralKeyPair\": {\"pubKey\": \"BaOqnOKyHn0FTsejKiJT9K2qAgLgUau+5SBpKWF+rsk9\", \"privKey\": \"IN+hzqB5HymRvss5H9fbrHd7aa82ZmZlDW79BsGJQ0k=\"}, \"lastRemoteEphemeralKey\": \"Bd0UvCXhlFL/dtsveC8kvSBEgGNePu24gLxjFsluG4xe\", \"previousCounter\": 0, \"rootKey\": \"v0DEvfd8wH7vkTKDtXza6YqOAjKv8DD/nceL0v/+xSU=\"}, \"indexInfo\": {\"baseKey\": \"BYDqWGLj2WJewkqEipLKg7yLn4JKAsvVpvP+AeBD8oM6\", \"baseKeyType\": 2, \"closed\": -1, \"used\": 1795353235497, \"created\": 1795353235445, \"remoteIdentityKey\": \"BfWC3DRMJhoyTA77GyxfKk8zrCEvhTgsFRNhWT8pg7xV\"}, \"_chains\": {\"BaoWFj9lyTZOncLDSBN4a3oYbpbUY96buluZGPy5f0ti\": {\"chainKey\": {\"counter\": 0}, \"chainType\": 2, \"messageKeys\": {}}, \"BXU/OwAJJO4tCZOMq3Z76lEMtey4VgfU4Omwp0G0X8hg\": {\"chainKey\": {\"counter\": 0}, \"chainType\": 2, \"messageKeys\": {}}, \"BeNWnMfveVUpjXJOJ+LxAIYt/gcOE+H1J93k6d5UaVc7\": {\"chainKey\": {\"counter\": 0}, \"chainType\": 2, \"messageKeys\": {}}, \"Bd0UvCXhlFL/dtsveC8kvSBEgGNePu24gLxjFsluG4xe\": {\"chainKey\": {\"counter\": 0, \"key\": \"GwoXYfMuip46pKqb2VixDHSELyKr/zcdTIpfZzgMxh8=\"}, \"chainType\": 2, \"messageKeys\": {}}, \"BaOqnOKyHn0FTsejKiJT9K2qAgLgUau+5SBpKWF+rsk9\": {\"chainKey\": {\"counter\": 0, \"key\": \"+WbkY+aRNufWXM4AVhZGI1qu6S2QcrJMWQ1EkXS3+jg=\"}, \"chainType\": 1, \"messageKeys\": {}}}}}, \"version\": \"v1\"}');
/*!40000 ALTER TABLE `BaileysKeys` ENABLE KEYS */;
UNLOCK TABLES;

--
-- Table structure for table `Messages`
--

DROP TABLE IF EXISTS `Messages`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8mb4 */;
CREATE TABLE `Messages` (
  `id` int(11) DEFAULT NULL,
  `body` text DEFAULT NULL,
  `raw` longblob DEFAULT NULL,
  `price` decimal(30,2) DEFAULT NULL,
  `bits` bit(3) DEFAULT NULL,
  `ratio` double DEFAULT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
/*!40101 SET character_set_client = @saved_cs_client */;

--
-- Dumping data for table `Messages`
--

LOCK TABLES `Messages` WRITE;
/*!40000 ALTER TABLE `Messages` DISABLE KEYS */;
INSERT INTO `Messages` (`id`, `body`, `raw`, `price`, `bits`, `ratio`) VALUES (1,'it\'s; \\ \"quoted\" `name` -- no /* comment\r\n	\Z and 🙂',0x000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F202122232425262728292A2B2C2D2E2F303132333435363738393A3B3C3D3E3F404142434445464748494A4B4C4D4E4F505152535455565758595A5B5C5D5E5F606162636465666768696A6B6C6D6E6F707172737475767778797A7B7C7D7E7F808182838485868788898A8B8C8D8E8F909192939495969798999A9B9C9D9E9FA0A1A2A3A4A5A6A7A8A9AAABACADAEAFB0B1B2B3B4B5B6B7B8B9BABBBCBDBEBFC0C1C2C3C4C5C6C7C8C9CACBCCCDCECFD0D1D2D3D4D5D6D7D8D9DADBDCDDDEDFE0E1E2E3E4E5E6E7E8E9EAEBECEDEEEFF0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF,12345678901234567890.12,0x05,-1.5e-300);
/*!40000 ALTER TABLE `Messages` ENABLE KEYS */;
UNLOCK TABLES;
/*!50003 SET @saved_cs_client      = @@character_set_client */ ;
/*!50003 SET @saved_cs_results     = @@character_set_results */ ;
/*!50003 SET @saved_col_connection = @@collation_connection */ ;
/*!50003 SET character_set_client  = utf8mb3 */ ;
/*!50003 SET character_set_results = utf8mb3 */ ;
/*!50003 SET collation_connection  = utf8mb3_general_ci */ ;
/*!50003 SET @saved_sql_mode       = @@sql_mode */ ;
/*!50003 SET sql_mode              = 'STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_AUTO_CREATE_USER,NO_ENGINE_SUBSTITUTION' */ ;
DELIMITER ;;
/*!50003 CREATE*/ /*!50017 DEFINER=``*/ /*!50003 TRIGGER `counting` BEFORE INSERT ON `Messages` FOR EACH ROW BEGIN SET NEW.id = NEW.id + 1; SET @a = ';'; END 
*/;;
DELIMITER ;
/*!50003 SET sql_mode              = @saved_sql_mode */ ;
/*!50003 SET character_set_client  = @saved_cs_client */ ;
/*!50003 SET character_set_results = @saved_cs_results */ ;
/*!50003 SET collation_connection  = @saved_col_connection */ ;

--
-- Table structure for table `Session`
--

DROP TABLE IF EXISTS `Session`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8mb4 */;
CREATE TABLE `Session` (
  `pkId` int(11) NOT NULL AUTO_INCREMENT,
  `sessionId` varchar(128) NOT NULL COMMENT 'a;b''c`d',
  `id` varchar(255) NOT NULL,
  `data` text NOT NULL,
  PRIMARY KEY (`pkId`),
  UNIQUE KEY `one` (`sessionId`,`id`)
) ENGINE=InnoDB AUTO_INCREMENT=9 DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
/*!40101 SET character_set_client = @saved_cs_client */;

--
-- Dumping data for table `Session`
--

LOCK TABLES `Session` WRITE;
/*!40000 ALTER TABLE `Session` DISABLE KEYS */;
INSERT INTO `Session` (`pkId`, `sessionId`, `id`, `data`) VALUES (1,'shop','creds','{\"noiseKey\": {\"private\": {\"type\": \"Buffer\", \"data\": \"WILWZ8RNgM5s8Kk9fcaicpPrtEt4fOvBKaEO0g3RFFI=\"}, \"public\": {\"type\": \"Buffer\", \"data\": \"7cpqJs6IjhZ6pa41ucbAdGhi+SXPq6PjD0JD0gOy9TE=\"}}, \"pairingEphemeralKeyPair\": {\"private\": {\"type\": \"Buffer\", \"data\": \"KMpolckJt50MQRDgTpLcC5qAmF3QLob+likoOcDtkFE=\"}, \"public\": {\"type\": \"Buffer\", \"data\": \"cmOj+KDt6UT4IMdhhuBoKXMZeQbgBCdQS/+39OmPOmI=\"}}, \"signedIdentityKey\": {\"private\": {\"type\": \"Buffer\", \"data\": \"yPvj7RszelCNSTQWs8El/0DUnpkq/YFdSHDTQ8ekR0E=\"}, \"public\": {\"type\": \"Buffer\", \"data\": \"QBtoEsUzxLUhTF0bTeXe93zZbCyarBKN63ay+18lDEg=\"}}, \"signedPreKey\": {\"keyPair\": {\"private\": {\"type\": \"Buffer\", \"data\": \"qHsqVHnj/ikmeBNoRcAR3DMHCkO6l+3qwHZ0NeFfaWI=\"}, \"public\": {\"type\": \"Buffer\", \"data\": \"mrGfNvoZHbcEFJ7iQDKF9osR4kQlr8kQ3+zPXuXT01c=\"}}, \"signature\": {\"type\": \"Buffer\", \"data\": \"S9MxH3eI9h8zkJFg+D3H3iAgDXndEtvIOCVh/4CoQOKD6WgVFgZ0NQ/qR/Uf+y15TPOrN+xgOPL+vO/Ox+qJAQ==\"}, \"keyId\": 1}, \"registrationId\": 125, \"advSecretKey\": \"Ehy5ekxV84++RnR/628C0/EdAwCAEEztFP7rnyJoRWc=\", \"processedHistoryMessages\": [], \"nextPreKeyId\": 7, \"firstUnuploadedPreKeyId\": 7, \"accountSyncCounter\": 0, \"accountSettings\": {\"unarchiveChats\": false}, \"registered\": false, \"account\": {\"details\": \"COkHEIHiz6oGGAUgACgA\", \"accountSignatureKey\": \"KBOnXhwx4hZVte6OiRZeiGA9NwSBA85AvE5YoCpx83c=\", \"accountSignature\": \"e8C51ZYaabvm5neTNmcMP3dHliz7mOMdiol8FqsddiHvAv1lMYDgNjuSQVFkdT82o8P8T0REV44sEVu34GNiCA==\", \"deviceSignature\": \"FJacOxrIhKF3IWlgi6aY7YhckLxL7dx5LFpLovP0AGXCH4SgPY9qrbQ5SOCuftqGnV9UeduHafz1OmQqdQJYAw==\"}, \"me\": {\"id\": \"5511900000001:5@s.whatsapp.net\", \"name\": \"dev1\", \"lid\": \"100000000000001:5@lid\"}, \"signalIdentities\": [{\"identifier\": {\"name\": \"100000000000001:5@lid\", \"deviceId\": 0}, \"identifierKey\": {\"type\": \"Buffer\", \"data\": \"BSgTp14cMeIWVbXujokWXohgPTcEgQPOQLxOWKAqcfN3\"}}], \"platform\": \"smba\"}');
INSERT INTO `Session` (`pkId`, `sessionId`, `id`, `data`) VALUES (2,'shop','identity-key-5511900000002.0','{\"type\": \"Buffer\", \"data\": \"BfWC3DRMJhoyTA77GyxfKk8zrCEvhTgsFRNhWT8pg7xV\"}');
INSERT INTO `Session` (`pkId`, `sessionId`, `id`, `data`) VALUES (3,'shop','pre-key-1','{\"private\": {\"type\": \"Buffer\", \"data\": \"OMnT14Tf9usnxKbNHHhst0qhgwUyGggAWt7LsMagZH8=\"}, \"public\": {\"type\": \"Buffer\", \"data\": \"D/t/iCazBBZAdWWddj07p/HnMHPvBA39HMge0XsRgUQ=\"}}');
INSERT INTO `Session` (`pkId`, `sessionId`, `id`, `data`) VALUES (4,'shop','pre-key-2','{\"private\": {\"type\": \"Buffer\", \"data\": \"+KDDhs7aYnkskLz5sHPxB7ek9cRVZWx53gfTtmDXM1A=\"}, \"public\": {\"type\": \"Buffer\", \"data\": \"OI53AIEqxxdnpVMSCqd1yDnx+fdNAzsC/kDNflB1NFY=\"}}');
INSERT INTO `Session` (`pkId`, `sessionId`, `id`, `data`) VALUES (5,'shop','pre-key-4','{\"private\": {\"type\": \"Buffer\", \"data\": \"WH5ooENXWf86SeFiWhVYfTkvj9Kaxo+B0CzdiUeN4GM=\"}, \"public\": {\"type\": \"Buffer\", \"data\": \"Rfq36IpTIoq/DXrdwtANsV43B2aM+bFtpTEsC73Wk0s=\"}}');
INSERT INTO `Session` (`pkId`, `sessionId`, `id`, `data`) VALUES (6,'shop','pre-key-5','{\"private\": {\"type\": \"Buffer\", \"data\": \"kCVgldpOTxDU8vnNZFohRkECSwlX57NdOI5TFShms08=\"}, \"public\": {\"type\": \"Buffer\", \"data\": \"w5HbSbc/Lf+WozYLAJWg/5D6TXlp+9w5dv8EwodsMzw=\"}}');
INSERT INTO `Session` (`pkId`, `sessionId`, `id`, `data`) VALUES (7,'shop','pre-key-6','{\"private\": {\"type\": \"Buffer\", \"data\": \"aI4fdHiicEmBPed+ZFQN+I2c21Y4iypYBSbB/KqZbWg=\"}, \"public\": {\"type\": \"Buffer\", \"data\": \"At1NeNFDLj3e6d6j6/iE54iFNulkrT7mvBsfntoRc0o=\"}}');
INSERT INTO `Session` (`pkId`, `sessionId`, `id`, `data`) VALUES (8,'shop','session-5511900000002.0','{\"_sessions\": {\"BYDqWGLj2WJewkqEipLKg7yLn4JKAsvVpvP+AeBD8oM6\": {\"registrationId\": 161, \"currentRatchet\": {\"ephemeralKeyPair\": {\"pubKey\": \"BaOqnOKyHn0FTsejKiJT9K2qAgLgUau+5SBpKWF+rsk9\", \"privKey\": \"IN+hzqB5HymRvss5H9fbrHd7aa82ZmZlDW79BsGJQ0k=\"}, \"lastRemoteEphemeralKey\": \"Bd0UvCXhlFL/dtsveC8kvSBEgGNePu24gLxjFsluG4xe\", \"previousCounter\": 0, \"rootKey\": \"v0DEvfd8wH7vkTKDtXza6YqOAjKv8DD/nceL0v/+xSU=\"}, \"indexInfo\": {\"baseKey\": \"BYDqWGLj2WJewkqEipLKg7yLn4JKAsvVpvP+AeBD8oM6\", \"baseKeyType\": 2, \"closed\": -1, \"used\": 1795353235497, \"created\": 1795353235445, \"remoteIdentityKey\": \"BfWC3DRMJhoyTA77GyxfKk8zrCEvhTgsFRNhWT8pg7xV\"}, \"_chains\": {\"BaoWFj9lyTZOncLDSBN4a3oYbpbUY96buluZGPy5f0ti\": {\"chainKey\": {\"counter\": 0}, \"chainType\": 2, \"messageKeys\": {}}, \"BXU/OwAJJO4tCZOMq3Z76lEMtey4VgfU4Omwp0G0X8hg\": {\"chainKey\": {\"counter\": 0}, \"chainType\": 2, \"messageKeys\": {}}, \"BeNWnMfveVUpjXJOJ+LxAIYt/gcOE+H1J93k6d5UaVc7\": {\"chainKey\": {\"counter\": 0}, \"chainType\": 2, \"messageKeys\": {}}, \"Bd0UvCXhlFL/dtsveC8kvSBEgGNePu24gLxjFsluG4xe\": {\"chainKey\": {\"counter\": 0, \"key\": \"GwoXYfMuip46pKqb2VixDHSELyKr/zcdTIpfZzgMxh8=\"}, \"chainType\": 2, \"messageKeys\": {}}, \"BaOqnOKyHn0FTsejKiJT9K2qAgLgUau+5SBpKWF+rsk9\": {\"chainKey\": {\"counter\": 0, \"key\": \"+WbkY+aRNufWXM4AVhZGI1qu6S2QcrJMWQ1EkXS3+jg=\"}, \"chainType\": 1, \"messageKeys\": {}}}}}, \"version\": \"v1\"}');
/*!40000 ALTER TABLE `Session` ENABLE KEYS */;
UNLOCK TABLES;

--
-- Table structure for table `Whatsapps`
--

DROP TABLE IF EXISTS `Whatsapps`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8mb4 */;
CREATE TABLE `Whatsapps` (
  `id` int(11) NOT NULL,
  `name` varchar(255) DEFAULT NULL,
  `session` text DEFAULT NULL,
  `at` datetime DEFAULT NULL,
  `on` tinyint(1) DEFAULT NULL,
  PRIMARY KEY (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
/*!40101 SET character_set_client = @saved_cs_client */;

--
-- Dumping data for table `Whatsapps`
--

LOCK TABLES `Whatsapps` WRITE;
/*!40000 ALTER TABLE `Whatsapps` DISABLE KEYS */;
INSERT INTO `Whatsapps` (`id`, `name`, `session`, `at`, `on`) VALUES (7,'Jörg','{\"creds\": {\"noiseKey\": {\"private\": {\"type\": \"Buffer\", \"data\": [88, 130, 214, 103, 196, 77, 128, 206, 108, 240, 169, 61, 125, 198, 162, 114, 147, 235, 180, 75, 120, 124, 235, 193, 41, 161, 14, 210, 13, 209, 20, 82]}, \"public\": {\"type\": \"Buffer\", \"data\": [237, 202, 106, 38, 206, 136, 142, 22, 122, 165, 174, 53, 185, 198, 192, 116, 104, 98, 249, 37, 207, 171, 163, 227, 15, 66, 67, 210, 3, 178, 245, 49]}}, \"pairingEphemeralKeyPair\": {\"private\": {\"type\": \"Buffer\", \"data\": [40, 202, 104, 149, 201, 9, 183, 157, 12, 65, 16, 224, 78, 146, 220, 11, 154, 128, 152, 93, 208, 46, 134, 254, 150, 41, 40, 57, 192, 237, 144, 81]}, \"public\": {\"type\": \"Buffer\", \"data\": [114, 99, 163, 248, 160, 237, 233, 68, 248, 32, 199, 97, 134, 224, 104, 41, 115, 25, 121, 6, 224, 4, 39, 80, 75, 255, 183, 244, 233, 143, 58, 98]}}, \"signedIdentityKey\": {\"private\": {\"type\": \"Buffer\", \"data\": [200, 251, 227, 237, 27, 51, 122, 80, 141, 73, 52, 22, 179, 193, 37, 255, 64, 212, 158, 153, 42, 253, 129, 93, 72, 112, 211, 67, 199, 164, 71, 65]}, \"public\": {\"type\": \"Buffer\", \"data\": [64, 27, 104, 18, 197, 51, 196, 181, 33, 76, 93, 27, 77, 229, 222, 247, 124, 217, 108, 44, 154, 172, 18, 141, 235, 118, 178, 251, 95, 37, 12, 72]}}, \"signedPreKey\": {\"keyPair\": {\"private\": {\"type\": \"Buffer\", \"data\": [168, 123, 42, 84, 121, 227, 254, 41, 38, 120, 19, 104, 69, 192, 17, 220, 51, 7, 10, 67, 186, 151, 237, 234, 192, 118, 116, 53, 225, 95, 105, 98]}, \"public\": {\"type\": \"Buffer\", \"data\": [154, 177, 159, 54, 250, 25, 29, 183, 4, 20, 158, 226, 64, 50, 133, 246, 139, 17, 226, 68, 37, 175, 201, 16, 223, 236, 207, 94, 229, 211, 211, 87]}}, \"signature\": {\"type\": \"Buffer\", \"data\": [75, 211, 49, 31, 119, 136, 246, 31, 51, 144, 145, 96, 248, 61, 199, 222, 32, 32, 13, 121, 221, 18, 219, 200, 56, 37, 97, 255, 128, 168, 64, 226, 131, 233, 104, 21, 22, 6, 116, 53, 15, 234, 71, 245, 31, 251, 45, 121, 76, 243, 171, 55, 236, 96, 56, 242, 254, 188, 239, 206, 199, 234, 137, 1]}, \"keyId\": 1}, \"registrationId\": 125, \"advSecretKey\": \"Ehy5ekxV84++RnR/628C0/EdAwCAEEztFP7rnyJoRWc=\", \"processedHistoryMessages\": [], \"nextPreKeyId\": 7, \"firstUnuploadedPreKeyId\": 7, \"accountSyncCounter\": 0, \"accountSettings\": {\"unarchiveChats\": false}, \"registered\": false, \"account\": {\"details\": \"COkHEIHiz6oGGAUgACgA\", \"accountSignatureKey\": \"KBOnXhwx4hZVte6OiRZeiGA9NwSBA85AvE5YoCpx83c=\", \"accountSignature\": \"e8C51ZYaabvm5neTNmcMP3dHliz7mOMdiol8FqsddiHvAv1lMYDgNjuSQVFkdT82o8P8T0REV44sEVu34GNiCA==\", \"deviceSignature\": \"FJacOxrIhKF3IWlgi6aY7YhckLxL7dx5LFpLovP0AGXCH4SgPY9qrbQ5SOCuftqGnV9UeduHafz1OmQqdQJYAw==\"}, \"me\": {\"id\": \"5511900000001:5@s.whatsapp.net\", \"name\": \"dev1\", \"lid\": \"100000000000001:5@lid\"}, \"signalIdentities\": [{\"identifier\": {\"name\": \"100000000000001:5@lid\", \"deviceId\": 0}, \"identifierKey\": {\"type\": \"Buffer\", \"data\": [5, 40, 19, 167, 94, 28, 49, 226, 22, 85, 181, 238, 142, 137, 22, 94, 136, 96, 61, 55, 4, 129, 3, 206, 64, 188, 78, 88, 160, 42, 113, 243, 119]}}], \"platform\": \"smba\"}, \"keys\": {}}','2026-11-25 20:31:53',1);
/*!40000 ALTER TABLE `Whatsapps` ENABLE KEYS */;
UNLOCK TABLES;

--
-- Table structure for table `auth`
--

DROP TABLE IF EXISTS `auth`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8mb4 */;
CREATE TABLE `auth` (
  `session` varchar(50) NOT NULL,
  `id` varchar(100) NOT NULL,
  `value` longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL CHECK (json_valid(`value`)),
  UNIQUE KEY `one` (`session`,`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
/*!40101 SET character_set_client = @saved_cs_client */;

--
-- Dumping data for table `auth`
--

LOCK TABLES `auth` WRITE;
/*!40000 ALTER TABLE `auth` DISABLE KEYS */;
INSERT INTO `auth` (`session`, `id`, `value`) VALUES ('shop','creds','{\"noiseKey\": {\"private\": {\"type\": \"Buffer\", \"data\": \"WILWZ8RNgM5s8Kk9fcaicpPrtEt4fOvBKaEO0g3RFFI=\"}, \"public\": {\"type\": \"Buffer\", \"data\": \"7cpqJs6IjhZ6pa41ucbAdGhi+SXPq6PjD0JD0gOy9TE=\"}}, \"pairingEphemeralKeyPair\": {\"private\": {\"type\": \"Buffer\", \"data\": \"KMpolckJt50MQRDgTpLcC5qAmF3QLob+likoOcDtkFE=\"}, \"public\": {\"type\": \"Buffer\", \"data\": \"cmOj+KDt6UT4IMdhhuBoKXMZeQbgBCdQS/+39OmPOmI=\"}}, \"signedIdentityKey\": {\"private\": {\"type\": \"Buffer\", \"data\": \"yPvj7RszelCNSTQWs8El/0DUnpkq/YFdSHDTQ8ekR0E=\"}, \"public\": {\"type\": \"Buffer\", \"data\": \"QBtoEsUzxLUhTF0bTeXe93zZbCyarBKN63ay+18lDEg=\"}}, \"signedPreKey\": {\"keyPair\": {\"private\": {\"type\": \"Buffer\", \"data\": \"qHsqVHnj/ikmeBNoRcAR3DMHCkO6l+3qwHZ0NeFfaWI=\"}, \"public\": {\"type\": \"Buffer\", \"data\": \"mrGfNvoZHbcEFJ7iQDKF9osR4kQlr8kQ3+zPXuXT01c=\"}}, \"signature\": {\"type\": \"Buffer\", \"data\": \"S9MxH3eI9h8zkJFg+D3H3iAgDXndEtvIOCVh/4CoQOKD6WgVFgZ0NQ/qR/Uf+y15TPOrN+xgOPL+vO/Ox+qJAQ==\"}, \"keyId\": 1}, \"registrationId\": 125, \"advSecretKey\": \"Ehy5ekxV84++RnR/628C0/EdAwCAEEztFP7rnyJoRWc=\", \"processedHistoryMessages\": [], \"nextPreKeyId\": 7, \"firstUnuploadedPreKeyId\": 7, \"accountSyncCounter\": 0, \"accountSettings\": {\"unarchiveChats\": false}, \"registered\": false, \"account\": {\"details\": \"COkHEIHiz6oGGAUgACgA\", \"accountSignatureKey\": \"KBOnXhwx4hZVte6OiRZeiGA9NwSBA85AvE5YoCpx83c=\", \"accountSignature\": \"e8C51ZYaabvm5neTNmcMP3dHliz7mOMdiol8FqsddiHvAv1lMYDgNjuSQVFkdT82o8P8T0REV44sEVu34GNiCA==\", \"deviceSignature\": \"FJacOxrIhKF3IWlgi6aY7YhckLxL7dx5LFpLovP0AGXCH4SgPY9qrbQ5SOCuftqGnV9UeduHafz1OmQqdQJYAw==\"}, \"me\": {\"id\": \"5511900000001:5@s.whatsapp.net\", \"name\": \"dev1\", \"lid\": \"100000000000001:5@lid\"}, \"signalIdentities\": [{\"identifier\": {\"name\": \"100000000000001:5@lid\", \"deviceId\": 0}, \"identifierKey\": {\"type\": \"Buffer\", \"data\": \"BSgTp14cMeIWVbXujokWXohgPTcEgQPOQLxOWKAqcfN3\"}}], \"platform\": \"smba\"}');
INSERT INTO `auth` (`session`, `id`, `value`) VALUES ('shop','identity-key-5511900000002.0','{\"type\": \"Buffer\", \"data\": \"BfWC3DRMJhoyTA77GyxfKk8zrCEvhTgsFRNhWT8pg7xV\"}');
INSERT INTO `auth` (`session`, `id`, `value`) VALUES ('shop','pre-key-1','{\"private\": {\"type\": \"Buffer\", \"data\": \"OMnT14Tf9usnxKbNHHhst0qhgwUyGggAWt7LsMagZH8=\"}, \"public\": {\"type\": \"Buffer\", \"data\": \"D/t/iCazBBZAdWWddj07p/HnMHPvBA39HMge0XsRgUQ=\"}}');
INSERT INTO `auth` (`session`, `id`, `value`) VALUES ('shop','pre-key-2','{\"private\": {\"type\": \"Buffer\", \"data\": \"+KDDhs7aYnkskLz5sHPxB7ek9cRVZWx53gfTtmDXM1A=\"}, \"public\": {\"type\": \"Buffer\", \"data\": \"OI53AIEqxxdnpVMSCqd1yDnx+fdNAzsC/kDNflB1NFY=\"}}');
INSERT INTO `auth` (`session`, `id`, `value`) VALUES ('shop','pre-key-4','{\"private\": {\"type\": \"Buffer\", \"data\": \"WH5ooENXWf86SeFiWhVYfTkvj9Kaxo+B0CzdiUeN4GM=\"}, \"public\": {\"type\": \"Buffer\", \"data\": \"Rfq36IpTIoq/DXrdwtANsV43B2aM+bFtpTEsC73Wk0s=\"}}');
INSERT INTO `auth` (`session`, `id`, `value`) VALUES ('shop','pre-key-5','{\"private\": {\"type\": \"Buffer\", \"data\": \"kCVgldpOTxDU8vnNZFohRkECSwlX57NdOI5TFShms08=\"}, \"public\": {\"type\": \"Buffer\", \"data\": \"w5HbSbc/Lf+WozYLAJWg/5D6TXlp+9w5dv8EwodsMzw=\"}}');
INSERT INTO `auth` (`session`, `id`, `value`) VALUES ('shop','pre-key-6','{\"private\": {\"type\": \"Buffer\", \"data\": \"aI4fdHiicEmBPed+ZFQN+I2c21Y4iypYBSbB/KqZbWg=\"}, \"public\": {\"type\": \"Buffer\", \"data\": \"At1NeNFDLj3e6d6j6/iE54iFNulkrT7mvBsfntoRc0o=\"}}');
INSERT INTO `auth` (`session`, `id`, `value`) VALUES ('shop','session-5511900000002.0','{\"_sessions\": {\"BYDqWGLj2WJewkqEipLKg7yLn4JKAsvVpvP+AeBD8oM6\": {\"registrationId\": 161, \"currentRatchet\": {\"ephemeralKeyPair\": {\"pubKey\": \"BaOqnOKyHn0FTsejKiJT9K2qAgLgUau+5SBpKWF+rsk9\", \"privKey\": \"IN+hzqB5HymRvss5H9fbrHd7aa82ZmZlDW79BsGJQ0k=\"}, \"lastRemoteEphemeralKey\": \"Bd0UvCXhlFL/dtsveC8kvSBEgGNePu24gLxjFsluG4xe\", \"previousCounter\": 0, \"rootKey\": \"v0DEvfd8wH7vkTKDtXza6YqOAjKv8DD/nceL0v/+xSU=\"}, \"indexInfo\": {\"baseKey\": \"BYDqWGLj2WJewkqEipLKg7yLn4JKAsvVpvP+AeBD8oM6\", \"baseKeyType\": 2, \"closed\": -1, \"used\": 1795353235497, \"created\": 1795353235445, \"remoteIdentityKey\": \"BfWC3DRMJhoyTA77GyxfKk8zrCEvhTgsFRNhWT8pg7xV\"}, \"_chains\": {\"BaoWFj9lyTZOncLDSBN4a3oYbpbUY96buluZGPy5f0ti\": {\"chainKey\": {\"counter\": 0}, \"chainType\": 2, \"messageKeys\": {}}, \"BXU/OwAJJO4tCZOMq3Z76lEMtey4VgfU4Omwp0G0X8hg\": {\"chainKey\": {\"counter\": 0}, \"chainType\": 2, \"messageKeys\": {}}, \"BeNWnMfveVUpjXJOJ+LxAIYt/gcOE+H1J93k6d5UaVc7\": {\"chainKey\": {\"counter\": 0}, \"chainType\": 2, \"messageKeys\": {}}, \"Bd0UvCXhlFL/dtsveC8kvSBEgGNePu24gLxjFsluG4xe\": {\"chainKey\": {\"counter\": 0, \"key\": \"GwoXYfMuip46pKqb2VixDHSELyKr/zcdTIpfZzgMxh8=\"}, \"chainType\": 2, \"messageKeys\": {}}, \"BaOqnOKyHn0FTsejKiJT9K2qAgLgUau+5SBpKWF+rsk9\": {\"chainKey\": {\"counter\": 0, \"key\": \"+WbkY+aRNufWXM4AVhZGI1qu6S2QcrJMWQ1EkXS3+jg=\"}, \"chainType\": 1, \"messageKeys\": {}}}}}, \"version\": \"v1\"}');
/*!40000 ALTER TABLE `auth` ENABLE KEYS */;
UNLOCK TABLES;

--
-- Temporary table structure for view `names`
--

DROP TABLE IF EXISTS `names`;
/*!50001 DROP VIEW IF EXISTS `names`*/;
SET @saved_cs_client     = @@character_set_client;
SET character_set_client = utf8mb4;
/*!50001 CREATE VIEW `names` AS SELECT
 NULL AS `id`,
 NULL AS `name` */;
SET character_set_client = @saved_cs_client;

--
-- Final view structure for view `names`
--

/*!50001 DROP VIEW IF EXISTS `names`*/;
/*!50001 SET @saved_cs_client          = @@character_set_client */;
/*!50001 SET @saved_cs_results         = @@character_set_results */;
/*!50001 SET @saved_col_connection     = @@collation_connection */;
/*!50001 SET character_set_client      = utf8mb3 */;
/*!50001 SET character_set_results     = utf8mb3 */;
/*!50001 SET collation_connection      = utf8mb3_general_ci */;
/*!50001 CREATE ALGORITHM=UNDEFINED DEFINER=`` SQL SECURITY DEFINER VIEW `names` AS select `Whatsapps`.`id` AS `id`,`Whatsapps`.`name` AS `name` from `Whatsapps` */;
/*!50001 SET character_set_client      = @saved_cs_client */;
/*!50001 SET character_set_results     = @saved_cs_results */;
/*!50001 SET collation_connection      = @saved_col_connection */;
/*!40103 SET TIME_ZONE=@OLD_TIME_ZONE */;

/*!40101 SET SQL_MODE=@OLD_SQL_MODE */;
/*!40014 SET FOREIGN_KEY_CHECKS=@OLD_FOREIGN_KEY_CHECKS */;
/*!40014 SET UNIQUE_CHECKS=@OLD_UNIQUE_CHECKS */;
/*!40101 SET CHARACTER_SET_CLIENT=@OLD_CHARACTER_SET_CLIENT */;
/*!40101 SET CHARACTER_SET_RESULTS=@OLD_CHARACTER_SET_RESULTS */;
/*!40101 SET COLLATION_CONNECTION=@OLD_COLLATION_CONNECTION */;
/*!40111 SET SQL_NOTES=@OLD_SQL_NOTES */;

-- Dump completed on 2026-11-25 20:31:53
